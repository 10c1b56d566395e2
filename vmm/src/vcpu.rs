//! `Vcpu`: a virtual CPU, and the one place that enters the guest.

use std::io;

use kvm_bindings::{KVM_SYNC_X86_REGS, kvm_fpu, kvm_guest_debug, kvm_regs, kvm_sregs};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, SyncReg, VcpuFd, VmFd};
use shared_abi::hypercall::Registers as HypercallRegisters;
use shared_abi::{Gva, HypercallError};
use x86_64::registers::control::Cr0Flags;

use crate::boot::cpu_mode::LongMode;
use crate::channels::{Coalesced, Host};
use crate::error::{Error, Result};
use crate::exit::{self, Exit};
use crate::stop::{Attached, StopHandle};

/// Where a guest was when it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// RIP: at the instruction that caused the exit, or behind it.
    pub rip: Gva,
    /// RSP: the top of its stack.
    pub rsp: Gva,
    /// RBP: where its chain of frames starts.
    pub rbp: Gva,
}

/// What [`Vcpu::enter_guest`] comes back with.
#[derive(Debug)]
pub struct Exited<'a> {
    /// Why the guest left.
    pub exit: Exit<'a>,
    /// Where it was; `None` where only an ioctl could tell.
    pub place: Option<Place>,
}

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    /// Size in bytes of the mapping that starts with `kvm_run`.
    mapping_size: usize,
    /// Whether KVM copies the registers into `kvm_run` at every exit, and back from there when told so
    /// (KVM_CAP_SYNC_REGS). Else each takes an ioctl.
    syncs_registers: bool,
    /// Writes that KVM keeps until the next exit, once the guest has asked for that.
    coalesced: Option<Coalesced>,
}

impl Vcpu {
    /// Creates the vCPU `id` of a VM.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn create(kvm: &Kvm, vm: &VmFd, id: u64) -> Result<Self> {
        let mapping_size = mapping_size(kvm)?;
        let mut fd = vm.create_vcpu(id).map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        let syncs_registers = kvm.check_extension_int(Cap::SyncRegs).cast_unsigned() & KVM_SYNC_X86_REGS != 0;
        if syncs_registers {
            fd.set_sync_valid_reg(SyncReg::Register);
        }
        Ok(Self { fd, mapping_size, syncs_registers, coalesced: None })
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
    pub fn enter_guest(&mut self) -> Exited<'_> {
        let result = self.fd.run().map(drop);
        if let Some(coalesced) = &self.coalesced {
            coalesced.drain(&mut self.fd);
        }
        let place = self.syncs_registers.then(|| {
            let registers = self.fd.sync_regs().regs;
            Place { rip: Gva(registers.rip), rsp: Gva(registers.rsp), rbp: Gva(registers.rbp) }
        });
        let exit = match result {
            Ok(()) => exit::read(self.fd.get_kvm_run(), self.mapping_size),
            Err(error) => match error.errno() {
                libc::EINTR | libc::EAGAIN => Exit::Interrupted,
                errno => Exit::RunFailed(errno),
            },
        };
        Exited { exit, place }
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
    pub(crate) fn attach(&mut self, stop: &StopHandle) -> Result<Attached> {
        stop.attach(self.fd.get_kvm_run())
    }

    /// The general registers, RIP and RFLAGS.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn registers(&self) -> Result<kvm_regs> {
        self.fd.get_regs().map_err(Error::kvm("KVM_GET_REGS"))
    }

    /// Sets the general registers, RIP and RFLAGS.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set_registers(&self, registers: &kvm_regs) -> Result<()> {
        self.fd.set_regs(registers).map_err(Error::kvm("KVM_SET_REGS"))
    }

    /// Segments, descriptor tables and control registers.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn special_registers(&self) -> Result<kvm_sregs> {
        self.fd.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))
    }

    /// Sets segments, descriptor tables and control registers.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set_special_registers(&self, registers: &kvm_sregs) -> Result<()> {
        self.fd.set_sregs(registers).map_err(Error::kvm("KVM_SET_SREGS"))
    }

    /// x87 and SSE registers.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn fpu(&self) -> Result<kvm_fpu> {
        self.fd.get_fpu().map_err(Error::kvm("KVM_GET_FPU"))
    }

    /// Tells KVM what to stop at for a debugger: steps, `int3`, the four hardware breakpoints. The default is nothing.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set_guest_debug(&self, debug: &kvm_guest_debug) -> Result<()> {
        self.fd.set_guest_debug(debug).map_err(Error::kvm("KVM_SET_GUEST_DEBUG"))
    }

    /// Makes every access to registers an ioctl, as on hosts without KVM_CAP_SYNC_REGS.
    pub fn forgo_register_sync(&mut self) {
        self.fd.clear_sync_valid_reg(SyncReg::Register);
        self.syncs_registers = false;
    }

    /// The registers of a hypercall, after the exit it made.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn hypercall_registers(&self) -> Result<HypercallRegisters> {
        let registers = if self.syncs_registers { self.fd.sync_regs().regs } else { self.registers()? };
        let kvm_regs { rax, rdi, rsi, rdx, r10, r8, r9, .. } = registers;
        Ok(HypercallRegisters::new(rax, &[rdi, rsi, rdx, r10, r8, r9]))
    }

    /// Sets RAX and RDI for when the guest continues.
    ///
    /// RIP goes back as it came: a KVM on hardware exits with RIP at the OUT and steps over it at the next entry, if it
    /// is still there; KVM's emulator has stepped already.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set_hypercall_answer(&mut self, rax: u64, rdi: u64) -> Result<()> {
        if self.syncs_registers {
            let registers = &mut self.fd.sync_regs_mut().regs;
            (registers.rax, registers.rdi) = (rax, rdi);
            // KVM takes the registers over at the next entry and clears the mark.
            self.fd.set_sync_dirty_reg(SyncReg::Register);
            return Ok(());
        }
        let registers = kvm_regs { rax, rdi, ..self.registers()? };
        self.fd.set_regs(&registers).map_err(Error::kvm("KVM_SET_REGS"))
    }

    /// Lets KVM keep the guest's writes to `zone` until the next exit, and then shows them.
    pub(crate) fn coalesce(
        &mut self,
        zone: (IoEventAddress, u32),
        host: Host<'_>,
    ) -> std::result::Result<(), HypercallError> {
        self.coalesced = Some(Coalesced::register(zone, &mut self.fd, host)?);
        Ok(())
    }

    /// CR3, or `None` while paging is off.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn page_tables(&self) -> Result<Option<u64>> {
        let registers = self.special_registers()?;
        Ok((registers.cr0 & Cr0Flags::PAGING.bits() != 0).then_some(registers.cr3))
    }

    /// RIP, or `None` when KVM does not tell it. After port output it is at the instruction or behind it, as the KVM has
    /// it.
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
fn mapping_size(kvm: &Kvm) -> Result<usize> {
    let size = kvm.get_vcpu_mmap_size().map_err(Error::kvm("KVM_GET_VCPU_MMAP_SIZE"))?;
    if size < size_of::<kvm_bindings::kvm_run>() {
        let source = io::Error::other(format!("{size} bytes do not hold a kvm_run"));
        return Err(Error::Kvm { call: "KVM_GET_VCPU_MMAP_SIZE", source });
    }
    Ok(size)
}
