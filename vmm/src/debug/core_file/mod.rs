//! `CoreFile`: a guest's memory and registers in a file that debuggers open: `gdb kernel.elf core`.
//!
//! It is an ELF file as Linux writes one for a process (System V ABI, chapter 5; Linux include/linux/elfcore.h), so that
//! no debugger needs to know what a guest is:
//!
//! ```text
//! 0        ┌ ELF header           ET_CORE, EM_X86_64
//! 64       ├ program headers      PT_NOTE; then a PT_LOAD for each run of virtual addresses
//!          ├ notes                registers, name, what was said at the end: `notes.rs`
//!          ├ … up to a multiple of 4 KiB
//!          └ RAM                  what was ever touched, lowest first, each page once; pages of zeros are holes
//! ```
//!
//! A debugger asks for virtual addresses, so the guest's own page tables say what is where: `segments.rs`. Several may
//! map one page; it is in the file once, and so the file is never larger than what the guest has touched, whatever its
//! tables claim. RAM that nothing maps any more is there too, with no address that leads to it.

mod headers;
mod notes;
mod segments;

pub(super) use notes::signal;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;
use x86_64::registers::control::EferFlags;

use self::notes::Thread;
use self::segments::Segments;
use crate::crew::Life;
use crate::debug::{CpuState, repeat};
use crate::error::{Error, Result};
use crate::hypercall::largest_file;
use crate::memory::GuestMemory;
use crate::next::StopReason;
use crate::page_walk::Paging;
use crate::report::RunReport;
use crate::touched::{self, Extent};
use crate::vm::Vm;

/// A core file, created and not written yet. Dropped so, it is removed again.
#[derive(Debug)]
pub struct CoreFile {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

/// What a core file cannot tell, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// KVM lost the registers, and the guest was run once more.
    Repeated,
    /// KVM lost the registers, and why the guest could not be run once more.
    RegistersLost(String),
    /// The guest's page tables map more than a file has headers for.
    Cut,
    /// The guest uses page tables of another kind than 64-bit mode has.
    OtherPaging,
}

impl fmt::Display for Remark {
    /// A sentence without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeated => repeat::REMARK,
            Self::RegistersLost(why) => {
                return write!(
                    f,
                    "the registers are those of a reset, as this host's KVM loses them when a guest dies, and {why}; memory \
                     is shown as the page tables of the start map it"
                );
            }
            Self::Cut => {
                "the guest's page tables map more ranges than a core file has headers for, and the last are missing"
            }
            Self::OtherPaging => {
                "the guest's page tables are not those of 64-bit mode and were not followed; addresses are physical"
            }
        })
    }
}

impl CoreFile {
    /// Creates the file, empty, so that a path that cannot be written is known before the guest runs. A core file that
    /// is there already is overwritten.
    ///
    /// # Errors
    /// [`Error::CoreFile`], also when there is something else, such as the kernel.
    pub fn create(path: &Path) -> Result<Self> {
        let failed = |source| Error::CoreFile { path: path.to_owned(), source };
        if fs::exists(path).map_err(failed)? && !is_core_file(path).map_err(failed)? {
            return Err(failed(io::Error::other("it is there already, and is no core file")));
        }
        let file = File::create(path).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file, is_kept: false })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the machine as it is now: `report` says why it stopped. What the file cannot tell is in the answer.
    ///
    /// Where KVM loses the registers of a guest that dies, the guest is [repeated](Vm::repeat), and this is written.
    ///
    /// # Errors
    /// [`Error::CoreFile`], and then no file is left; [`Error::Kvm`] when registers cannot be read.
    pub fn write(mut self, vm: &Vm, report: &RunReport) -> Result<Vec<Remark>> {
        let now = vm.cpu_state()?;
        let is_lost = report.stop == StopReason::TripleFault && now.is_reset();
        let remarks = match is_lost.then(|| vm.repeat(report)) {
            None => self.write_machine(vm, &registers(vm, &now, report), vm, report)?,
            Some(Ok(caught)) => {
                let mut remarks = self.write_machine(&caught.vm, &caught.state, vm, report)?;
                remarks.push(Remark::Repeated);
                remarks
            }
            Some(Err(why)) => {
                let mut remarks = self.write_machine(vm, &now, vm, report)?;
                remarks.push(Remark::RegistersLost(why));
                remarks
            }
        };
        self.is_kept = true;
        Ok(remarks)
    }

    /// Writes the memory of `vm` with the registers `cpu`, and what is known of the run of `original`.
    fn write_machine(
        &self,
        vm: &Vm,
        cpu: &CpuState,
        original: &Vm,
        report: &RunReport,
    ) -> Result<Vec<Remark>> {
        let mut remarks = Vec::new();
        let tables = tables(cpu, vm, &mut remarks);
        let extents = touched::extents(vm.memory(), GAP);
        let segments = Segments::of(tables, vm.memory(), &extents);
        if segments.are_cut {
            remarks.push(Remark::Cut);
        }
        let first = Thread { vcpu: original.vcpu().id(), cpu: *cpu, fpu: vm.vcpu().fpu()? };
        let notes = notes::notes(original, &first, &other_threads(original)?, report);
        let written = self.write_parts(&segments, &notes, vm.memory(), &extents);
        written.map_err(|source| Error::CoreFile { path: self.path.clone(), source })?;
        Ok(remarks)
    }

    fn write_parts(
        &self,
        segments: &Segments,
        notes: &[u8],
        memory: &GuestMemory,
        extents: &[Extent],
    ) -> io::Result<()> {
        let headers = headers::headers(segments, notes.len() as u64);
        let start = headers::ram_start(segments, notes.len() as u64);
        let ram_size: u64 = extents.iter().map(|extent| extent.end.0 - extent.start.0).sum();
        if start + ram_size > largest_file() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_all_at(&headers, 0)?;
        self.file.write_all_at(notes, headers.len() as u64)?;
        self.write_ram(start, memory, extents)?;
        // The last page may be a hole.
        self.file.set_len(start + ram_size)
    }

    /// Writes these parts of RAM, one behind the other, from this offset of the file on.
    fn write_ram(&self, mut offset: u64, memory: &GuestMemory, extents: &[Extent]) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK as usize];
        for extent in extents {
            let mut gpa = extent.start;
            while gpa < extent.end {
                let size = (extent.end.0 - gpa.0).min(CHUNK);
                let bytes = buffer.get_mut(..size as usize).expect("at most a chunk");
                memory.read(gpa, bytes).expect("extents are parts of RAM");
                self.write_filled_pages(bytes, offset)?;
                offset += size;
                gpa = Gpa(gpa.0 + size);
            }
        }
        Ok(())
    }

    fn write_filled_pages(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        for (index, page) in (0..).zip(bytes.chunks(PAGE_SIZE as usize)) {
            if page != ZEROS {
                self.file.write_all_at(page, offset + index * PAGE_SIZE)?;
            }
        }
        Ok(())
    }
}

impl Drop for CoreFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // Nothing more can be done about a file that cannot be removed.
            _ = fs::remove_file(&self.path);
        }
    }
}

/// The vCPUs that the run did not end on. One that was never started has no registers to show.
fn other_threads(vm: &Vm) -> Result<Vec<Thread>> {
    let Some(crew) = &vm.machine().crew else { return Ok(Vec::new()) };
    let others = vm.vcpus().filter(|vcpu| vcpu.id() != vm.vcpu().id());
    let started = others.filter(|vcpu| !matches!(crew.life(vcpu), Ok(Life::Unstarted)));
    started.map(|vcpu| Ok(Thread { vcpu: vcpu.id(), cpu: CpuState::of(vcpu)?, fpu: vcpu.fpu()? })).collect()
}

/// Whether an earlier core file is there, or a file without contents.
fn is_core_file(path: &Path) -> io::Result<bool> {
    // Asked before opening: opening a pipe would wait for its writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(metadata.is_file());
    }
    let mut start = Vec::new();
    File::open(path)?.take(headers::START_SIZE as u64).read_to_end(&mut start)?;
    Ok(headers::are_of_a_core_file(&start))
}

/// Untouched RAM of this size and more is told by a header, less by a hole: headers are few, and a hole is free.
const GAP: u64 = 1 << 20;
/// Bytes read from RAM at once.
const CHUNK: u64 = 256 << 10;
static ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];

/// CR3 of the tables that say what is where, or `None` when addresses are physical.
fn tables(cpu: &CpuState, vm: &Vm, remarks: &mut Vec<Remark>) -> Option<u64> {
    if cpu.is_reset() {
        let first = vm.map().first_tables()?;
        return (first.paging == Paging::FourLevels).then_some(first.cr3);
    }
    let cr3 = cpu.page_tables()?.cr3;
    if cpu.special.efer & EferFlags::LONG_MODE_ACTIVE.bits() == 0 {
        remarks.push(Remark::OtherPaging);
        return None;
    }
    Some(cr3)
}

/// The registers of the place of death: those that an exception interrupted, where the guest has told them; and RIP at
/// the instruction that left the guest, where KVM has stepped over it already.
fn registers(vm: &Vm, now: &CpuState, report: &RunReport) -> CpuState {
    let mut cpu = *now;
    match &report.stop {
        StopReason::Exception(frame) => return CpuState::interrupted(frame, now),
        StopReason::Exited { .. }
        | StopReason::UnclaimedPort { .. }
        | StopReason::UnclaimedMmio { .. }
        | StopReason::Halted { .. } => {
            let shown = vm.diagnose(report).registers;
            cpu.general.rip = shown.and_then(|registers| registers.get("rip")).unwrap_or(cpu.general.rip);
        }
        _ => {}
    }
    cpu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_file_that_is_never_written_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("core");
        let core = CoreFile::create(&path).expect("it can be created");
        assert!(path.exists());
        drop(core);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_core_file_is_neither_overwritten_nor_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let kernel = folder.path().join("kernel.elf");
        fs::write(&kernel, b"\x7fELF and more").expect("writable");
        for path in [folder.path(), Path::new("/dev/null"), &folder.path().join("nowhere/core"), &kernel] {
            let error = CoreFile::create(path).expect_err("no core file can be there").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
        assert!(Path::new("/dev/null").exists());
        assert_eq!(fs::read(&kernel).expect("it is there"), b"\x7fELF and more");
    }
}
