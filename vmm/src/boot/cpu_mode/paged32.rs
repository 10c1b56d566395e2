//! 32-bit paging: what made the 80386 of 1985 a CPU for Unix, with the large pages of the Pentium of 1993.
//!
//! An address is cut in three: ten bits choose an entry of the page directory, ten an entry of a page table, twelve a byte
//! of the page. Intel SDM vol. 3A, 4.3.

use kvm_bindings::kvm_sregs;
use kvm_ioctls::VcpuFd;
use shared_abi::{Gpa, Gva};
use x86_64::registers::control::{Cr0Flags, Cr4Flags};

use super::{RegisterOrigins, StartMode, protected};
use crate::error::Result;

/// 32-bit code with two levels of page tables: [protected mode](super::ProtectedMode), and besides
///
/// | register | value | why |
/// |---|---|---|
/// | `CR0` | `PG` | paging is on |
/// | | `WP` | read-only pages are read-only for the kernel too |
/// | `CR3` | the page directory's GPA | |
/// | `CR4` | `PSE` | an entry of the page directory may map 4 MiB itself |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paged32 {
    /// Where execution starts.
    pub entry_gva: Gva,
    /// Where the page directory lies.
    pub page_directory_gpa: Gpa,
}

/// What paging adds.
pub(super) const CR0: Cr0Flags = Cr0Flags::PAGING.union(Cr0Flags::WRITE_PROTECT);

impl Paged32 {
    /// Sets the vCPU's registers and checks that KVM kept them.
    ///
    /// # Errors
    /// As [`CpuMode::set`](super::CpuMode::set).
    pub fn set(&self, vcpu: &VcpuFd) -> Result<RegisterOrigins> {
        super::set(vcpu, StartMode::Paged32, |reset| self.sregs(reset), &protected::regs(self.entry_gva.0))
    }

    fn sregs(&self, reset: kvm_sregs) -> kvm_sregs {
        let protected = protected::sregs(reset);
        kvm_sregs {
            cr0: protected.cr0 | CR0.bits(),
            cr3: self.page_directory_gpa.0,
            cr4: Cr4Flags::PAGE_SIZE_EXTENSION.bits(),
            ..protected
        }
    }
}
