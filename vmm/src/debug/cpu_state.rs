//! `CpuState`: the registers of a vCPU that does not run.

use kvm_bindings::{kvm_regs, kvm_sregs};
use shared_abi::Gva;
use x86_64::registers::control::Cr0Flags;

use crate::error::Result;
use crate::guest_space::GuestSpace;
use crate::memory::GuestMemory;
use crate::vcpu::Vcpu;

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

    /// RIP.
    #[must_use]
    pub fn rip(&self) -> Gva {
        Gva(self.general.rip)
    }

    /// CR3, or `None` while paging is off and every address is physical.
    #[must_use]
    pub fn page_tables(&self) -> Option<u64> {
        (self.special.cr0 & Cr0Flags::PAGING.bits() != 0).then_some(self.special.cr3)
    }

    /// Guest memory as this CPU sees it.
    #[must_use]
    pub fn space<'a>(&self, memory: &'a GuestMemory) -> GuestSpace<'a> {
        GuestSpace::new(memory, self.page_tables())
    }
}
