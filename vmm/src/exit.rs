//! `Exit`: why the guest stopped running, in our words. The only file that reads exits from `kvm_run`.
//!
//! KVM shares one structure with the VMM per vCPU, `kvm_run`, mapped from the vCPU's file descriptor. When KVM_RUN
//! returns, `exit_reason` says which member of a union holds the details (Linux Documentation/virt/kvm/api.rst, 5).
//! For port I/O the details are port, direction, size, count, and *where in the same mapping* the data bytes lie:
//!
//! ```text
//! kvm_run ┌──────────────────────────────┐ 0
//!         │ exit_reason = KVM_EXIT_IO    │
//!         │ io.direction, size, port,    │
//!         │    count, data_offset ───────┼──┐
//!         ├──────────────────────────────┤  │ one page later, with today's kernels
//!         │ data: size × count bytes     │◄─┘ for IN the VMM fills them in
//!         └──────────────────────────────┘ KVM_GET_VCPU_MMAP_SIZE
//! ```

use std::{fmt, slice};

use kvm_bindings::{
    KVM_EXIT_DEBUG, KVM_EXIT_FAIL_ENTRY, KVM_EXIT_HLT, KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTR, KVM_EXIT_IO,
    KVM_EXIT_IO_IN, KVM_EXIT_IOAPIC_EOI, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, kvm_run,
};
use serde::Serialize;
use shared_abi::{Gpa, Gva, ports};

/// Why the guest stopped running. Whatever a guest does is one of these values.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit<'a> {
    /// The guest rang the hypercall doorbell; its registers hold the request. KVM_EXIT_IO.
    Hypercall,
    /// The guest reads from a port; `data` is what it will get. KVM_EXIT_IO.
    PioIn {
        /// The port.
        port: u16,
        /// Bytes per access: 1, 2 or 4. More than one access (`rep ins`) lie behind one another in `data`.
        size: u8,
        /// Where the answer goes.
        data: &'a mut [u8],
    },
    /// The guest writes to a port. KVM_EXIT_IO.
    PioOut {
        /// The port.
        port: u16,
        /// Bytes per access: 1, 2 or 4. More than one access (`rep outs`) lie behind one another in `data`.
        size: u8,
        /// What it writes.
        data: &'a [u8],
    },
    /// The guest reads where no RAM is. KVM_EXIT_MMIO.
    MmioRead {
        /// The address.
        gpa: Gpa,
        /// Where the answer goes: 1 to 8 bytes.
        data: &'a mut [u8],
    },
    /// The guest writes where no RAM is. KVM_EXIT_MMIO.
    MmioWrite {
        /// The address.
        gpa: Gpa,
        /// What it writes: 1 to 8 bytes.
        data: &'a [u8],
    },
    /// The guest executed HLT, and no interrupt controller in the kernel waits with it. KVM_EXIT_HLT.
    Halt,
    /// An exception while the double-fault handler was called: the CPU shuts down. KVM_EXIT_SHUTDOWN.
    TripleFault,
    /// A signal, or `immediate_exit`: the guest did nothing. EINTR, EAGAIN or KVM_EXIT_INTR.
    Interrupted,
    /// The guest has ended an interrupt of a level-triggered line, and the I/O APIC is ours. KVM_EXIT_IOAPIC_EOI.
    IoapicEoi {
        /// The interrupt's vector.
        vector: u8,
    },
    /// A debugger's step is done, or its breakpoint is reached. KVM_EXIT_DEBUG.
    Debug(DebugEvent),
    /// KVM had to emulate an instruction and cannot. KVM_EXIT_INTERNAL_ERROR, suberror 1.
    EmulationFailure(InstructionBytes),
    /// KVM itself is at its wits' end. KVM_EXIT_INTERNAL_ERROR, other suberrors.
    InternalError {
        /// KVM_INTERNAL_ERROR_*.
        suberror: u32,
    },
    /// The CPU refused the guest's state. KVM_EXIT_FAIL_ENTRY.
    EntryFailed {
        /// The reason in the CPU's own words (VMX: Intel SDM vol. 3C, appendix C).
        hardware_reason: u64,
    },
    /// KVM_RUN itself failed, with this errno: a guest can cause it, by running where the host has no memory.
    RunFailed(i32),
    /// Any other KVM_EXIT_* number.
    Unknown(u32),
}

/// What a debugger asked KVM to stop at (Linux Documentation/virt/kvm/api.rst, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugEvent {
    /// The vector: 1 for #DB, 3 for #BP.
    pub exception: u32,
    /// Where the guest is: behind a step, at a breakpoint.
    pub pc: Gva,
    /// Which of the four hardware breakpoints, or a step: DR6 (Intel SDM vol. 3B, 18.2.3).
    pub dr6: u64,
}

impl DebugEvent {
    /// DR6.BS: one instruction was executed.
    const SINGLE_STEP: u64 = 1 << 14;
    /// The vector of #BP, which `int3` raises.
    pub const BREAKPOINT: u32 = 3;

    /// Whether a step is done.
    #[must_use]
    pub fn is_step(&self) -> bool {
        self.dr6 & Self::SINGLE_STEP != 0
    }
}

/// The bytes at RIP of an instruction, at most 15; none when KVM did not give them.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct InstructionBytes {
    bytes: [u8; Self::MAX],
    size: u8,
}

impl InstructionBytes {
    /// No instruction is longer (Intel SDM vol. 2A, 2.3.11).
    const MAX: usize = 15;

    /// The first bytes of `bytes`, as far as an instruction can reach.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut own = Self::default();
        for (to, from) in own.bytes.iter_mut().zip(bytes) {
            *to = *from;
        }
        own.size = bytes.len().min(Self::MAX) as u8;
        own
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.size)).unwrap_or_default()
    }
}

impl fmt::Debug for InstructionBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.as_slice())
    }
}

/// Reads the exit from `run`, after KVM_RUN returned 0. The mapping that starts at `run` has `mapping_size` bytes.
pub(crate) fn read(run: &mut kvm_run, mapping_size: usize) -> Exit<'_> {
    match run.exit_reason {
        KVM_EXIT_IO => read_pio(run, mapping_size),
        KVM_EXIT_MMIO => read_mmio(run),
        KVM_EXIT_HLT => Exit::Halt,
        KVM_EXIT_SHUTDOWN => Exit::TripleFault,
        KVM_EXIT_INTR => Exit::Interrupted,
        KVM_EXIT_IOAPIC_EOI => {
            // SAFETY: KVM filled in this member, as `exit_reason` says; any bits are valid integers.
            Exit::IoapicEoi { vector: unsafe { run.__bindgen_anon_1.eoi.vector } }
        }
        KVM_EXIT_INTERNAL_ERROR => read_internal_error(run),
        KVM_EXIT_DEBUG => {
            // SAFETY: KVM filled in this member, as `exit_reason` says; any bits are valid integers.
            let details = unsafe { run.__bindgen_anon_1.debug.arch };
            Exit::Debug(DebugEvent { exception: details.exception, pc: Gva(details.pc), dr6: details.dr6 })
        }
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: KVM filled in this member, as `exit_reason` says; any bits are valid integers.
            let details = unsafe { run.__bindgen_anon_1.fail_entry };
            Exit::EntryFailed { hardware_reason: details.hardware_entry_failure_reason }
        }
        other => Exit::Unknown(other),
    }
}

/// What `kvm_run` says of port I/O, in the names of the KVM API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PortIo {
    /// The port.
    pub port: u16,
    /// KVM_EXIT_IO_OUT, the guest writes: else it reads.
    pub is_out: bool,
    /// Bytes per access: 1, 2 or 4.
    pub size: u8,
    /// How many accesses: more than one with a `rep` prefix.
    pub count: u32,
    /// Where the data bytes lie, from the start of `kvm_run`.
    pub data_offset: u64,
}

/// The port I/O that the exit in `run` is, if it is one.
pub(crate) fn port_io(run: &kvm_run) -> Option<PortIo> {
    if run.exit_reason != KVM_EXIT_IO {
        return None;
    }
    // SAFETY: KVM filled in this member, as `exit_reason` says; any bits are valid integers.
    let io = unsafe { run.__bindgen_anon_1.io };
    let is_out = u32::from(io.direction) != KVM_EXIT_IO_IN;
    Some(PortIo { port: io.port, is_out, size: io.size, count: io.count, data_offset: io.data_offset })
}

fn read_pio(run: &mut kvm_run, mapping_size: usize) -> Exit<'_> {
    // SAFETY: KVM filled in this member, as `exit_reason` says; any bits are valid integers.
    let io = unsafe { run.__bindgen_anon_1.io };
    if is_doorbell(io.port, io.size, io.count, io.direction) {
        return Exit::Hypercall;
    }
    let (offset, length) = (io.data_offset as usize, usize::from(io.size) * io.count as usize);
    let inside = offset >= size_of::<kvm_run>() && offset.saturating_add(length) <= mapping_size;
    assert!(inside, "KVM puts port data into the mapping, behind kvm_run: {length} bytes at {offset}");
    let first = std::ptr::from_mut(run).cast::<u8>();
    // The pointer reaches behind the structure it is made from. kvm-ioctls gives no other, and does the same itself.
    // SAFETY: The bytes lie in the vCPU's mapping (asserted) and behind the structure, so no other reference covers
    // them. The mapping lives as long as the vCPU that `run` borrows from. KVM writes there only in KVM_RUN.
    let data = unsafe { slice::from_raw_parts_mut(first.add(offset), length) };
    if u32::from(io.direction) == KVM_EXIT_IO_IN {
        Exit::PioIn { port: io.port, size: io.size, data }
    } else {
        Exit::PioOut { port: io.port, size: io.size, data }
    }
}

/// The doorbell is an OUT of 4 bytes, once. Any other access to its port is port I/O like any.
fn is_doorbell(port: u16, size: u8, count: u32, direction: u8) -> bool {
    port == ports::HYPERCALL && size == 4 && count == 1 && u32::from(direction) != KVM_EXIT_IO_IN
}

fn read_mmio(run: &mut kvm_run) -> Exit<'_> {
    // SAFETY: KVM filled in this member, as `exit_reason` says; any bits are valid integers.
    let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
    let gpa = Gpa(mmio.phys_addr);
    let length = (mmio.len as usize).min(mmio.data.len());
    let data = mmio.data.get_mut(..length).unwrap_or_default();
    if mmio.is_write == 0 { Exit::MmioRead { gpa, data } } else { Exit::MmioWrite { gpa, data } }
}

fn read_internal_error(run: &kvm_run) -> Exit<'static> {
    // SAFETY: `internal` and `emulation_failure` start with the same `suberror` and `ndata`, and KVM filled them in.
    let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
    if failure.suberror != KVM_INTERNAL_ERROR_EMULATION {
        return Exit::InternalError { suberror: failure.suberror };
    }
    let has_bytes = failure.ndata > 0
        && failure.flags & u64::from(KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
    if !has_bytes {
        return Exit::EmulationFailure(InstructionBytes::default());
    }
    // SAFETY: The flag says that KVM filled in size and bytes.
    let instruction = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
    let size = usize::from(instruction.insn_size).min(instruction.insn_bytes.len());
    Exit::EmulationFailure(InstructionBytes::new(instruction.insn_bytes.get(..size).unwrap_or_default()))
}

/// Up to 8 little-endian bytes as a number.
pub(crate) fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `kvm_run` with a page of data behind it, as KVM maps it.
    #[repr(C, align(4096))]
    struct Mapping {
        run: kvm_run,
        rest: [u8; 4096],
    }

    fn mapping() -> Box<Mapping> {
        Box::new(Mapping { run: kvm_run::default(), rest: [0; 4096] })
    }

    #[test]
    fn an_emulation_failure_carries_its_instruction() {
        let mut mapping = mapping();
        mapping.run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
        mapping.run.__bindgen_anon_1.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
        mapping.run.__bindgen_anon_1.emulation_failure.ndata = 4;
        mapping.run.__bindgen_anon_1.emulation_failure.flags = 1;
        let popcnt = [0xF3, 0x0F, 0xB8, 0xC1];
        let mut bytes = [0x90; 15];
        bytes[..4].copy_from_slice(&popcnt);
        let instruction = kvm_bindings::kvm_run__bindgen_ty_1__bindgen_ty_14__bindgen_ty_1__bindgen_ty_1 {
            insn_size: 4,
            insn_bytes: bytes,
        };
        mapping.run.__bindgen_anon_1.emulation_failure.__bindgen_anon_1.__bindgen_anon_1 = instruction;

        let exit = read(&mut mapping.run, size_of::<Mapping>());

        assert_eq!(exit, Exit::EmulationFailure(InstructionBytes::new(&popcnt)));
    }

    #[test]
    fn an_unknown_reason_stays_a_number() {
        let mut mapping = mapping();
        mapping.run.exit_reason = 0x1234;
        assert_eq!(read(&mut mapping.run, size_of::<Mapping>()), Exit::Unknown(0x1234));
    }

    #[test]
    fn an_mmio_length_beyond_eight_bytes_is_cut() {
        let mut mapping = mapping();
        mapping.run.exit_reason = KVM_EXIT_MMIO;
        mapping.run.__bindgen_anon_1.mmio.len = u32::MAX;
        mapping.run.__bindgen_anon_1.mmio.phys_addr = 0xC000_0000;
        let exit = read(&mut mapping.run, size_of::<Mapping>());
        assert_eq!(exit, Exit::MmioRead { gpa: Gpa(0xC000_0000), data: &mut [0; 8] });
    }
}
