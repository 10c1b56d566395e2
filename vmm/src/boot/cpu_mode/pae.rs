//! PAE paging: 32-bit code and more than 4 GiB of memory, since the Pentium Pro of 1995.
//!
//! Entries have 64 bits instead of 32, so they hold longer addresses, half as many fit a table, and a third level of just
//! four entries makes up for it. Their highest bit became "no execute" with the Opteron. Intel SDM vol. 3A, 4.4.

use kvm_bindings::kvm_sregs;
use kvm_ioctls::VcpuFd;
use shared_abi::{Gpa, Gva};
use x86_64::registers::control::{Cr4Flags, EferFlags};

use super::{RegisterOrigins, StartMode, paged32, protected};
use crate::error::Result;

/// 32-bit code with three levels of page tables: [protected mode](super::ProtectedMode), and besides
///
/// | register | value | why |
/// |---|---|---|
/// | `CR0` | `PG`, `WP` | as with [two levels](super::Paged32) |
/// | `CR3` | the GPA of the page-directory-pointer table | which the CPU reads now, and not again until CR3 is written |
/// | `CR4` | `PAE` | entries of 64 bits |
/// | `EFER` | `NXE` | pages can be marked "no execute" |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pae {
    /// Where execution starts.
    pub entry_gva: Gva,
    /// Where the four entries of the top level lie.
    pub pointer_table_gpa: Gpa,
}

impl Pae {
    /// Sets the vCPU's registers and checks that KVM kept them.
    ///
    /// # Errors
    /// As [`CpuMode::set`](super::CpuMode::set).
    pub fn set(&self, vcpu: &VcpuFd) -> Result<RegisterOrigins> {
        super::set(vcpu, StartMode::Pae, |reset| self.sregs(reset), &protected::regs(self.entry_gva.0))
    }

    fn sregs(&self, reset: kvm_sregs) -> kvm_sregs {
        let protected = protected::sregs(reset);
        kvm_sregs {
            cr0: protected.cr0 | paged32::CR0.bits(),
            cr3: self.pointer_table_gpa.0,
            cr4: Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits(),
            efer: EferFlags::NO_EXECUTE_ENABLE.bits(),
            ..protected
        }
    }
}
