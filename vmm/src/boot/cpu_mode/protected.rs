//! 32-bit protected mode: the 80386 of 1985, without paging.
//!
//! Segments have descriptors with base, limit and rights, so a program can be kept in its own. Ours are flat: from 0 to
//! 4 GiB, and every address is a physical one. Intel SDM vol. 3A, 2.2 and 3.2.1.

use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;
use shared_abi::{Gpa, layout};
use x86_64::registers::control::Cr0Flags;

use super::{RESERVED_RFLAGS, RegisterOrigins, StartMode, segment};
use crate::error::Result;

/// 32-bit code without paging.
///
/// | register | value | why |
/// |---|---|---|
/// | `CR0` | `PE` | protection is on |
/// | | `NE`, `ET` | floating-point errors as exceptions; a 387 |
/// | `CS` | flat code, ring 0 | `D` = 1: operands and addresses of 32 bits; selector 0x08 |
/// | `DS` `ES` `SS` `FS` `GS` | flat data, ring 0 | selector 0x10 |
/// | `TR` | busy TSS of no use | VMX refuses to enter a guest without one |
/// | `GDTR`, `IDTR` | base 0, limit 0 | no table: whoever loads a segment or takes an interrupt needs his own first |
/// | `EIP` | the entry | |
/// | `ESP` | 0x8_0000 | end of the stack |
/// | `EFLAGS` | bit 1, which is always 1 | interrupts are off |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtectedMode {
    /// Where execution starts, below 4 GiB.
    pub entry: Gpa,
}

/// What every mode with protection has.
const CR0: Cr0Flags =
    Cr0Flags::PROTECTED_MODE_ENABLE.union(Cr0Flags::NUMERIC_ERROR).union(Cr0Flags::EXTENSION_TYPE);

impl ProtectedMode {
    /// Sets the vCPU's registers and checks that KVM kept them.
    ///
    /// # Errors
    /// As [`CpuMode::set`](super::CpuMode::set).
    pub fn set(&self, vcpu: &VcpuFd) -> Result<RegisterOrigins> {
        super::set(vcpu, StartMode::Protected, sregs, &regs(self.entry.0))
    }
}

/// The special registers of 32-bit code; what is not named above stays as `reset` has it.
pub(super) fn sregs(reset: kvm_sregs) -> kvm_sregs {
    kvm_sregs {
        cs: segment::CODE_32,
        ds: segment::DATA,
        es: segment::DATA,
        fs: segment::DATA,
        gs: segment::DATA,
        ss: segment::DATA,
        tr: segment::TSS,
        ldt: segment::UNUSABLE,
        gdt: segment::NO_TABLE,
        idt: segment::NO_TABLE,
        cr0: CR0.bits(),
        cr2: 0,
        cr3: 0,
        cr4: 0,
        efer: 0,
        ..reset
    }
}

/// The general registers of 32-bit code.
pub(super) fn regs(entry: u64) -> kvm_regs {
    kvm_regs { rip: entry, rsp: layout::STACK_END.0, rflags: RESERVED_RFLAGS, ..kvm_regs::default() }
}
