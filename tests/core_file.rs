//! Core files: what a debugger finds in them is what the guest had.
//!
//! The file is read with the `object` crate, the guest's page tables with the harness's own walker; the tests in `gdb`
//! open it as a user would.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use object::read::elf::{ElfFile64, ProgramHeader};
use object::{Architecture, Object, ObjectKind, ObjectSegment, SegmentFlags, elf};
use shared_abi::{Gpa, Gva};
use tempfile::TempDir;
use vmm::debug::{CoreFile, Remark};

use crate::harness::walker::{LOWER_HALF, UPPER_HALF, Walker};
use crate::harness::{Finished, Seen, guest, patiently, probe, vmm_binary, vmm_run};

/// A guest that has run, and the core file of its end.
struct Dead {
    finished: Finished,
    remarks: Vec<Remark>,
    bytes: Vec<u8>,
}

impl Dead {
    fn of(finished: Finished) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("core");
        let core = CoreFile::create(&path).expect("it can be created");
        let remarks = core.write(&finished.vm, &finished.report).expect("it can be written");
        let bytes = fs::read(&path).expect("it is there");
        Self { finished, remarks, bytes }
    }

    fn elf(&self) -> ElfFile64<'_> {
        ElfFile64::parse(&*self.bytes).expect("it is an ELF file")
    }

    /// RIP as the note has it: behind 112 bytes of signals and times, the seventeenth register.
    fn rip(&self) -> u64 {
        let elf = self.elf();
        let headers = elf.elf_program_headers();
        let notes = headers.iter().find_map(|header| header.notes(elf.endian(), elf.data()).ok().flatten());
        let mut notes = notes.expect("a core file has notes");
        while let Some(note) = notes.next().expect("its notes are whole") {
            if note.n_type(elf.endian()) == elf::NT_PRSTATUS {
                let rip = note.desc().get(112 + 16 * 8..).and_then(<[u8]>::first_chunk);
                return u64::from_le_bytes(*rip.expect("registers are inside"));
            }
        }
        panic!("no note has registers");
    }

    /// Expects each page that the tables at `cr3` map to be in the file with the guest's bytes and rights, and no other
    /// page. Gives how many there were.
    #[track_caller]
    fn shows_what_is_mapped_at(&self, cr3: u64) -> usize {
        let memory = self.finished.vm.memory();
        let read = |gpa| memory.read_u64(Gpa(gpa)).ok();
        let walker = Walker { read, cr3, physical_bits: 46 };
        let mut expected = Vec::new();
        for span in [LOWER_HALF, UPPER_HALF].into_iter().flat_map(|half| walker.spans(half)) {
            let Ok(start) = span.outcome else { continue };
            let pages = (span.start..=span.last).step_by(4096);
            expected.extend(pages.map(|gva| (gva, start.gpa + (gva - span.start), start)));
        }

        let elf = self.elf();
        let mut pages = Vec::new();
        for segment in elf.segments() {
            let data = segment.data().expect("its bytes are in the file");
            let SegmentFlags::Elf { p_flags, .. } = segment.flags() else { panic!("an ELF file") };
            let starts = (segment.address()..segment.address() + segment.size()).step_by(4096);
            pages.extend(
                starts.zip((0..).step_by(4096)).map(|(gva, at)| (gva, data.get(at..at + 4096), p_flags)),
            );
        }

        assert_eq!(pages.len(), expected.len(), "{:?}", self.finished.vm.map());
        let mut bytes = [0; 4096];
        for ((gva, gpa, rights), (seen, data, flags)) in expected.iter().zip(pages) {
            assert_eq!(seen, *gva);
            memory.read(Gpa(*gpa), &mut bytes).expect("only RAM is mapped");
            assert!(data.unwrap_or(&[0; 4096]) == bytes, "the page at {gva:#x}");
            assert_eq!(flags.contains(elf::PF_W), rights.writable, "{gva:#x}");
            assert_eq!(flags.contains(elf::PF_X), rights.executable, "{gva:#x}");
        }
        expected.len()
    }
}

#[test]
fn every_mapped_page_is_there_with_the_guests_bytes_and_rights() {
    let dead = Dead::of(probe("panic").run());
    let elf = dead.elf();
    assert_eq!((elf.kind(), elf.architecture()), (ObjectKind::Core, Architecture::X86_64));
    assert_eq!(dead.remarks, []);

    let cr3 = dead.finished.vm.cpu_state().expect("a vCPU tells its registers").special.cr3;
    let pages = dead.shows_what_is_mapped_at(cr3);
    assert!(pages > 4000, "all but two pages of 16 MiB are mapped: {pages}");
}

#[test]
fn after_a_triple_fault_the_registers_are_those_of_the_death() {
    let dead = Dead::of(probe("without-idt null-write").run());
    let vm = &dead.finished.vm;
    assert!(matches!(dead.remarks[..], [] | [Remark::Repeated]), "{:?}", dead.remarks);
    // The probe has not changed CR3: the tables of the start are those of the end.
    dead.shows_what_is_mapped_at(vm.map().page_tables().expect("long mode has tables").start.0);
    let death = vm.symbols().frames(Gva(dead.rip()));
    assert!(
        death.iter().any(|frame| frame.function.as_deref() == Some("core::ptr::write_volatile")),
        "{death:?}"
    );
}

#[test]
fn registers_that_are_lost_leave_memory_and_a_remark() {
    let finished = probe("without-idt null-write").run();
    let vcpu = finished.vm.vcpu();
    // As kvm_amd does at a shutdown.
    let mut special = vcpu.special_registers().expect("a vCPU tells its registers");
    (special.cr0, special.cr3, special.cr4, special.efer) = (0x10, 0, 0, 0);
    (special.cs.selector, special.cs.base, special.cs.l, special.cs.db) = (0xF000, 0xFFFF_0000, 0, 0);
    vcpu.set_special_registers(&special).expect("the registers of a reset");
    let general = kvm_bindings::kvm_regs { rip: 0xFFF0, rflags: 2, ..Default::default() };
    vcpu.set_registers(&general).expect("the registers of a reset");

    let dead = Dead::of(finished);

    let tables = dead.finished.vm.map().page_tables().expect("long mode has tables").start.0;
    match &dead.remarks[..] {
        [Remark::RegistersLost(_)] => assert_eq!(dead.rip(), 0xFFF0),
        // Where the journal was kept, the death can be repeated.
        remarks => assert_eq!(remarks, [Remark::Repeated]),
    }
    dead.shows_what_is_mapped_at(tables);
}

#[test]
fn a_core_file_of_64_gib_is_small_and_quick() {
    let finished = probe("panic").memory("64G").run();
    let start = Instant::now();
    let dead = Dead::of(finished);
    let took = start.elapsed();
    assert!(took < patiently(Duration::from_secs(2)), "{took:?}");
    assert!(dead.bytes.len() < 64 << 20, "{} bytes", dead.bytes.len());
    let mapped: u64 = dead.elf().segments().map(|segment| segment.size()).sum();
    assert!(mapped > 63 << 30, "what was never touched has an address all the same: {mapped:#x}");
}

#[test]
fn tables_that_claim_everything_make_a_small_file_that_says_it_is_cut() {
    let finished = probe("panic").run();
    let pml4 = finished.vm.map().page_tables().expect("long mode has tables").start;
    for index in 1..512 {
        let entry = (pml4.0 | 0b11).to_le_bytes();
        finished.vm.memory().write(Gpa(pml4.0 + index * 8), &entry).expect("the tables are RAM");
    }
    let start = Instant::now();
    let dead = Dead::of(finished);
    let took = start.elapsed();
    assert!(took < patiently(Duration::from_secs(5)), "{took:?}");
    assert_eq!(dead.remarks, [Remark::Cut]);
    assert!(dead.bytes.len() < 32 << 20, "{} bytes", dead.bytes.len());
    assert_eq!(dead.elf().segments().count(), 0xFFFD);
}

#[test]
fn vmm_run_leaves_a_core_file_of_deaths_and_no_other() {
    let folder = TempDir::new().expect("a folder");
    let core = folder.path().join("core");
    let run = |words: &[&str]| {
        let core = ["--core", core.to_str().expect("a plain path")];
        vmm_run("probe", &[&core, words].concat())
    };

    for (words, code) in [
        (&["--", "panic"][..], 101),
        (&["--", "write-null"], 102),
        (&["--", "without-idt", "write-null"], 102),
        (&["--", "halt-with-interrupts"], 102),
        (&["--timeout", "300ms", "--", "spin"], 124),
        (&["--core-always", "--", "exit", "0"], 0),
    ] {
        let seen = run(words);
        assert_eq!(seen.code, Some(code), "{seen:?}");
        assert!(seen.stderr.contains(&format!("memory and registers are in {}", core.display())), "{seen:?}");
        assert!(fs::metadata(&core).is_ok_and(|file| file.len() > 1 << 20), "{words:?}");
    }

    let seen = run(&["--", "exit", "7"]);
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(7), ""));
    assert!(!core.exists(), "an old one would be taken for this run's");
}

#[test]
fn a_path_that_cannot_be_written_is_known_before_the_guest_runs() {
    let folder = TempDir::new().expect("a folder");
    let nowhere = folder.path().join("nowhere/core");
    for path in [nowhere.as_path(), folder.path(), Path::new("/dev/null")] {
        let path = path.to_str().expect("a plain path");
        let seen = vmm_run("probe", &["--core", path, "--", "panic"]);
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(100), ""), "{seen:?}");
        assert!(seen.stderr.starts_with(&format!("vmm: cannot write the core file {path}: ")), "{seen:?}");
    }
}

/// The exit code tells how the guest ended, also when the disk is full.
#[test]
fn a_core_file_that_finds_no_room_is_said_and_removed() {
    let folder = TempDir::new().expect("a folder");
    let core = folder.path().join("core");
    let seen = Seen::of(
        Command::new("bash")
            .args(["-c", "ulimit -f 8; exec \"$@\"", "bash"])
            .arg(vmm_binary())
            .args(["run", "--core"])
            .arg(&core)
            .arg(guest("probe"))
            .args(["--", "panic"]),
    );
    assert_eq!(seen.code, Some(101), "{seen:?}");
    assert!(
        seen.stderr.contains(&format!("vmm: cannot write the core file {}: ", core.display())),
        "{seen:?}"
    );
    assert!(!core.exists());
}

/// What gdb, knowing nothing of guests, shows of them.
mod gdb {
    use vmm::StopReason;

    use super::{Command, Seen, TempDir, guest, probe, vmm_run};
    use crate::gallery::place;

    /// Runs the probe to its death and has gdb execute `commands` on the core file; gives what gdb printed.
    fn ask(words: &[&str], commands: &[&str]) -> String {
        let folder = TempDir::new().expect("a folder");
        let core = folder.path().join("core");
        let run = vmm_run("probe", &[&["--core", core.to_str().expect("a plain path")], words].concat());
        assert!(core.exists(), "{run:?}");
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-iex", "set width 0"]);
        gdb.args(commands.iter().flat_map(|command| ["-ex", command]));
        let seen = Seen::of(gdb.arg(guest("probe")).arg(core));
        assert_eq!(seen.code, Some(0), "{seen:?}");
        seen.stdout
    }

    /// Whether these stand in `text`, one behind the other.
    #[track_caller]
    fn assert_in_order(text: &str, parts: &[&str]) {
        let mut rest = text;
        for part in parts {
            let at = rest.find(part).unwrap_or_else(|| panic!("no `{part}` there any more in:\n{text}"));
            rest = &rest[at + part.len()..];
        }
    }

    #[test]
    fn shows_the_backtrace_of_a_panic_and_its_variables() {
        let commands = ["bt", "frame function guest_kernel::power::exit", "print code"];
        let said = ask(&["--", "panic"], &commands);
        assert_in_order(
            &said,
            &[
                "Core was generated by `probe panic'.",
                "Program terminated with signal SIGABRT",
                "in guest_kernel::power::exit (code=101)",
                "in guest_kernel::panic::panic",
                "in core::panicking::panic_fmt",
                "probe::ends::DEEDS::{closure",
                "in probe::main ()",
                "in _start ()",
                "$1 = 101",
            ],
        );
    }

    #[test]
    fn shows_a_null_write_where_it_happened() {
        let commands =
            ["bt", "frame function probe::faults::write", "print address", "x/1xg 0x1000", "x/2xb 0xf00000"];
        let said = ask(&["--", "write-null"], &commands);
        let magic = format!("0x1000:\t{:#018x}", shared_abi::BootInfo::MAGIC);
        assert_in_order(
            &said,
            &[
                "signal SIGSEGV",
                "#0 ",
                "in probe::faults::write (address=8) at guest-kernel/src/bin/probe/faults.rs:",
                "in probe::main ()",
                "$1 = 8",
                &magic,
                "0xf00000:\t0x00\t0x00",
            ],
        );
    }

    #[test]
    fn shows_where_a_guest_span_that_was_stopped() {
        let said = ask(&["--timeout", "300ms", "--", "spin"], &["bt", "info registers rip"]);
        assert_in_order(
            &said,
            &[
                "signal SIGXCPU",
                "probe::ends::spin () at guest-kernel/src/bin/probe/ends.rs:",
                "in probe::main ()",
                "rip ",
            ],
        );
    }

    #[test]
    fn shows_the_instruction_that_left_the_guest_and_not_the_next() {
        for (deed, signal) in [("unknown-port-out", "SIGBUS"), ("hole-read", "SIGBUS"), ("ud2", "SIGILL")] {
            let said = ask(&["--", deed], &["bt"]);
            let (module, line) = place(deed);
            let place = format!("at guest-kernel/src/bin/probe/gallery/{module}.rs:{line}\n");
            assert_in_order(&said, &[signal, "#0 ", &place, "in probe::main ()"]);
        }
    }

    #[test]
    fn sees_the_registers_that_kvm_told() {
        let finished = probe("panic").run();
        finished.stopped_by(&StopReason::Exited { code: shared_abi::exit_code::PANICKED });
        let cpu = finished.vm.cpu_state().expect("a vCPU tells its registers").general;
        let said =
            ask(&["--", "panic"], &["print/x $rip", "print/x $rsp", "print/x $rdx", "print/x $eflags"]);
        // The same program does the same in the same machine.
        for (number, value) in [(1, cpu.rip), (2, cpu.rsp), (3, cpu.rdx), (4, cpu.rflags)] {
            assert_in_order(&said, &[&format!("${number} = {value:#x}")]);
        }
    }
}
