//! `CpuState`: the registers of a vCPU that does not run.

use kvm_bindings::{kvm_regs, kvm_sregs};
use shared_abi::{ExceptionFrame, Gva};
use x86_64::registers::control::Cr0Flags;

use crate::error::Result;
use crate::guest_space::GuestSpace;
use crate::memory::GuestMemory;
use crate::page_walk::PageTables;
use crate::vcpu::{RESET_RIP, Vcpu};

/// The registers of a vCPU that does not run. They are the guest's: any value may stand in any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CpuState {
    /// General registers, RIP, RFLAGS.
    pub general: kvm_regs,
    /// Segments, descriptor tables, control registers.
    pub special: kvm_sregs,
}

impl CpuState {
    /// Reads them.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm).
    pub fn of(vcpu: &Vcpu) -> Result<Self> {
        Ok(Self { general: vcpu.registers()?, special: vcpu.special_registers()? })
    }

    /// The registers of what an exception interrupted, by the frame that the guest shows; what a frame does not hold is
    /// as in `now`.
    #[must_use]
    pub fn interrupted(frame: &ExceptionFrame, now: &Self) -> Self {
        let general = kvm_regs {
            rax: frame.rax,
            rbx: frame.rbx,
            rcx: frame.rcx,
            rdx: frame.rdx,
            rsi: frame.rsi,
            rdi: frame.rdi,
            rsp: frame.rsp,
            rbp: frame.rbp,
            r8: frame.r8,
            r9: frame.r9,
            r10: frame.r10,
            r11: frame.r11,
            r12: frame.r12,
            r13: frame.r13,
            r14: frame.r14,
            r15: frame.r15,
            rip: frame.rip,
            rflags: frame.rflags,
        };
        let mut special = kvm_sregs { cr2: frame.cr2, ..now.special };
        special.cs.selector = frame.cs as u16;
        special.ss.selector = frame.ss as u16;
        // The ring is told by the selectors (Intel SDM vol. 3A, 5.5).
        special.cs.dpl = (frame.cs & 3) as u8;
        special.ss.dpl = (frame.cs & 3) as u8;
        Self { general, special }
    }

    /// Whether the vCPU was reset: what some KVMs do at a shutdown, so that nothing is left of the guest's registers.
    /// Intel SDM vol. 3A, table 9-1.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.rip() == RESET_RIP && self.special.cr0 & Cr0Flags::PROTECTED_MODE_ENABLE.bits() == 0
    }

    /// RIP.
    #[must_use]
    pub fn rip(&self) -> Gva {
        Gva(self.general.rip)
    }

    /// The page tables, or `None` while paging is off and every address is physical.
    #[must_use]
    pub fn page_tables(&self) -> Option<PageTables> {
        PageTables::of(&self.special)
    }

    /// Guest memory as this CPU sees it.
    #[must_use]
    pub fn space<'a>(&self, memory: &'a GuestMemory) -> GuestSpace<'a> {
        GuestSpace::new(memory, self.page_tables())
    }
}
