//! Long mode: the 64-bit mode of the Opteron of 2003, in which our kernels start.
//!
//! An operating system's first thousand lines lead a CPU here: a GDT, protected mode, page tables, `EFER.LME`, paging, a
//! far jump (Intel SDM vol. 3A, 10.8.5).

use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;
use shared_abi::{Gpa, Gva, layout};
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};
use x86_64::registers::rflags::RFlags;

use super::{RESERVED_RFLAGS, RegisterOrigins, StartMode, segment};
use crate::error::Result;

/// 64-bit mode with four-level paging: the one mode our guest kernels start in, and each of their CPUs.
///
/// | register | value | why |
/// |---|---|---|
/// | `CR0` | `PG`, `PE` | paging and protection: both needed for long mode |
/// | | `WP` | read-only pages are read-only for the kernel too |
/// | | `NE`, `MP`, `ET` | floating-point errors as exceptions; the rest is what every 64-bit CPU has |
/// | `CR3` | the PML4's GPA | |
/// | `CR4` | `PAE` | page-table entries of 64 bits, needed for long mode |
/// | | `OSFXSR`, `OSXMMEXCPT` | SSE instructions work: foreign images use them |
/// | `EFER` | `LME`, `LMA` | long mode enabled, and active |
/// | | `NXE` | pages can be marked "no execute" |
/// | `CS` | 64-bit code, ring 0 | `L` = 1, `D` = 0 |
/// | `DS` `ES` `SS` `FS` `GS` | flat data, ring 0 | |
/// | `TR` | busy 64-bit TSS of no use | VMX refuses to enter a guest without one |
/// | `GDTR`, `IDTR` | base 0, limit 0 | no table: an exception becomes a triple fault until the guest has loaded its own (`guest-kernel/src/cpu/`) |
/// | `RIP` | the image's entry | or what `StartCpu` says, as the two below |
/// | `RSP` | end of the stack | 16-byte aligned, as the ABI asks before a call |
/// | `RDI` | GPA of `BootInfo` | the first argument of a System V function |
/// | `RFLAGS` | bit 1, which is always 1 | interrupts are off |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongMode {
    /// Where execution starts.
    pub entry_gva: Gva,
    /// Where the PML4 lies.
    pub page_tables_gpa: Gpa,
    /// Where the stack ends.
    pub stack_gva: Gva,
    /// What the first function is called with.
    pub argument: u64,
}

impl LongMode {
    /// The start of a machine's first vCPU.
    #[must_use]
    pub fn at_boot(entry_gva: Gva, page_tables_gpa: Gpa) -> Self {
        let (stack_gva, argument) = (Gva(layout::STACK_END.0), layout::BOOT_INFO.0);
        Self { entry_gva, page_tables_gpa, stack_gva, argument }
    }

    /// Sets the vCPU's registers and checks that KVM kept them.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm), or [`Error::RegistersChanged`](crate::Error::RegistersChanged) when KVM has other
    /// values than were set.
    pub fn set(&self, vcpu: &VcpuFd) -> Result<RegisterOrigins> {
        super::set(vcpu, StartMode::Long, |reset| self.sregs(reset), &self.regs())
    }

    /// What [`set`](Self::set) makes of the registers after a reset.
    pub(super) fn registers(&self) -> (kvm_sregs, kvm_regs) {
        (self.sregs(super::reset()), self.regs())
    }

    /// The special registers; what is not named above stays as `reset` has it.
    fn sregs(&self, reset: kvm_sregs) -> kvm_sregs {
        kvm_sregs {
            cs: segment::CODE_64,
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
            cr3: self.page_tables_gpa.0,
            cr4: CR4.bits(),
            efer: EFER.bits(),
            ..reset
        }
    }

    fn regs(&self) -> kvm_regs {
        kvm_regs {
            rip: self.entry_gva.0,
            rsp: self.stack_gva.0,
            rdi: self.argument,
            rflags: RESERVED_RFLAGS,
            ..kvm_regs::default()
        }
    }
}

const CR0: Cr0Flags = Cr0Flags::PAGING
    .union(Cr0Flags::PROTECTED_MODE_ENABLE)
    .union(Cr0Flags::WRITE_PROTECT)
    .union(Cr0Flags::NUMERIC_ERROR)
    .union(Cr0Flags::MONITOR_COPROCESSOR)
    .union(Cr0Flags::EXTENSION_TYPE);
const CR4: Cr4Flags =
    Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.union(Cr4Flags::OSFXSR).union(Cr4Flags::OSXMMEXCPT_ENABLE);
const EFER: EferFlags =
    EferFlags::LONG_MODE_ENABLE.union(EferFlags::LONG_MODE_ACTIVE).union(EferFlags::NO_EXECUTE_ENABLE);

const _: () = assert!(!RFlags::INTERRUPT_FLAG.contains(RFlags::from_bits_retain(RESERVED_RFLAGS)));

#[cfg(test)]
mod tests {
    use super::super::difference::between;
    use super::*;

    #[test]
    fn a_dropped_bit_is_named() {
        let mode = LongMode::at_boot(Gva(0x10_0000), Gpa(0x8_0000));
        let set = mode.sregs(kvm_sregs::default());
        let mut kept = set;
        assert_eq!(between(&set, &kept), None);

        kept.cr0 &= !Cr0Flags::PAGING.bits();
        let difference = between(&set, &kept).expect("CR0 differs");
        assert!(
            difference.contains("CR0 set to 0x80010033, kept as 0x10033 (differs in PAGING)"),
            "{difference}"
        );
    }
}
