//! `Vcpu`: a virtual CPU, and the one place that enters the guest.

use std::io;

use kvm_bindings::kvm_regs;
use kvm_ioctls::{VcpuFd, VmFd};
use shared_abi::Gva;

use crate::boot::cpu_mode::LongMode;
use crate::error::{Error, Result};
use crate::exit::{self, Exit};
use crate::stop::{Attached, StopHandle};

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    /// Size in bytes of the mapping that starts with `kvm_run`.
    mapping_size: usize,
}

impl Vcpu {
    /// Creates the vCPU `id` of a VM. `mapping_size` is what KVM_GET_VCPU_MMAP_SIZE says.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn create(vm: &VmFd, id: u64, mapping_size: usize) -> Result<Self> {
        let fd = vm.create_vcpu(id).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        Ok(Self { fd, mapping_size })
    }

    /// Gives the vCPU the features that CPUID will show.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set_cpuid(&self, cpuid: &kvm_bindings::CpuId) -> Result<()> {
        self.fd.set_cpuid2(cpuid).map_err(Error::kvm("KVM_SET_CPUID2"))
    }

    /// Gives the vCPU the registers it starts with.
    ///
    /// # Errors
    /// As [`LongMode::set`].
    pub fn start_in(&self, mode: &LongMode) -> Result<()> {
        mode.set(&self.fd)
    }

    /// Lets the guest run until something needs the host.
    ///
    /// CROSSING 1, host -> guest: KVM_RUN. The CPU loads the guest's registers and page tables and continues at the
    /// guest's RIP; this thread executes guest code until the call returns with the reason for the exit. The guest
    /// may rely on its registers being as the host left them; the host relies on nothing the guest left but what
    /// KVM wrote into `kvm_run`.
    pub fn enter_guest(&mut self) -> Exit<'_> {
        match self.fd.run() {
            Ok(_) => exit::read(self.fd.get_kvm_run(), self.mapping_size),
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => Exit::Interrupted,
                errno => Exit::RunFailed(errno),
            },
        }
    }

    /// Makes ready for the next entry after an interrupted one, so that it does not return at once again.
    pub fn clear_interruption(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
    }

    /// Makes the next entry return at once.
    pub fn interrupt_next_entry(&mut self) {
        self.fd.set_kvm_immediate_exit(1);
    }

    /// Lets stop requests reach this thread while it runs this vCPU.
    pub(crate) fn attach<'a>(&mut self, stop: &'a StopHandle) -> Result<Attached<'a>> {
        stop.attach(self.fd.get_kvm_run())
    }

    /// The general registers, RIP and RFLAGS.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn registers(&self) -> Result<kvm_regs> {
        self.fd.get_regs().map_err(Error::kvm("KVM_GET_REGS"))
    }

    /// Where the vCPU would continue; `None` when KVM does not tell.
    #[must_use]
    pub fn rip(&self) -> Option<Gva> {
        self.registers().ok().map(|registers| Gva(registers.rip))
    }

    /// Whether the guest has interrupts enabled, after an exit. KVM keeps it in `kvm_run`: no ioctl.
    pub fn interrupts_enabled(&mut self) -> bool {
        self.fd.get_kvm_run().if_flag != 0
    }
}

/// The size of the mapping that a vCPU shares with KVM.
///
/// # Errors
/// [`Error::Kvm`].
pub fn mapping_size(kvm: &kvm_ioctls::Kvm) -> Result<usize> {
    let size = kvm
        .get_vcpu_mmap_size()
        .map_err(Error::kvm("KVM_GET_VCPU_MMAP_SIZE"))?;
    if size < size_of::<kvm_bindings::kvm_run>() {
        let source = io::Error::other(format!("{size} bytes do not hold a kvm_run"));
        return Err(Error::Kvm {
            call: "KVM_GET_VCPU_MMAP_SIZE",
            source,
        });
    }
    Ok(size)
}
