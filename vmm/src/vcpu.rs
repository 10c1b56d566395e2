//! `Vcpu`: a virtual CPU, and the one place that enters the guest.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED,
    KVM_SYNC_X86_EVENTS, KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, kvm_fpu, kvm_guest_debug, kvm_mp_state,
    kvm_regs, kvm_sregs, kvm_sync_regs, kvm_vcpu_events,
};
use kvm_ioctls::{Cap, IoEventAddress, Kvm, SyncReg, VcpuFd, VmFd};
use shared_abi::hypercall::Registers as HypercallRegisters;
use shared_abi::{Gva, HypercallError};
use x86_64::registers::control::Cr4Flags;
use x86_64::registers::model_specific::EferFlags;
use x86_64::registers::rflags::RFlags;

use crate::boot::cpu_mode::{CpuMode, RegisterOrigins};
use crate::channels::{Coalesced, Host};
use crate::cpus::VcpuId;
use crate::crew::Life;
use crate::error::{Error, Result};
use crate::exit::{self, Exit, PortIo};
use crate::origin::Origin;
use crate::page_walk::PageTables;
use crate::stop::{Attached, StopHandle};

/// Where a guest was when it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// RIP: at the instruction that caused the exit, or behind it. With the base of CS, where that counts and is known.
    pub rip: Gva,
    /// RSP: the top of its stack.
    pub rsp: Gva,
    /// RBP: where its chain of frames starts.
    pub rbp: Gva,
    /// CR3, where [`Vcpu::tell_page_tables`] has asked for it and the tables have the four levels of 64-bit mode.
    pub page_tables: Option<u64>,
}

impl Place {
    fn of(registers: &kvm_sync_regs, has_special: bool) -> Self {
        let kvm_regs { rip, rsp, rbp, .. } = registers.regs;
        let special = &registers.sregs;
        let has_four_levels = special.efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0
            && special.cr4 & Cr4Flags::L5_PAGING.bits() == 0;
        let page_tables = (has_special && has_four_levels).then_some(special.cr3);
        // Outside 64-bit mode RIP is an offset in CS.
        let is_64_bit = special.efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0 && special.cs.l != 0;
        let base = if has_special && !is_64_bit { special.cs.base } else { 0 };
        let rip = rip.wrapping_add(base);
        Self { rip: Gva(rip), rsp: Gva(rsp), rbp: Gva(rbp), page_tables }
    }
}

/// What [`Vcpu::enter_guest`] comes back with.
#[derive(Debug)]
pub struct Exited<'a> {
    /// Why the guest left.
    pub exit: Exit<'a>,
    /// Where it was; `None` where only an ioctl could tell.
    pub place: Option<Place>,
}

/// The lines at which control went into the guest and came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The call of KVM_RUN, into the guest.
    pub entered: Origin,
    /// The look at what KVM left in `kvm_run`, behind it.
    pub read: Origin,
    /// The line of the run loop that goes on with the exit.
    pub returned: Origin,
}

/// What KVM and the VMM share for one vCPU: `kvm_run` and what lies behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunMapping {
    /// Where it starts: a host-virtual address.
    pub hva: u64,
    /// Size in bytes: KVM_GET_VCPU_MMAP_SIZE.
    pub size: u64,
    /// The line that had it mapped.
    pub mapped_at: Origin,
}

/// RIP after a reset (Intel SDM vol. 3A, 11.1.4), which some KVMs give a vCPU that shuts down.
pub(crate) const RESET_RIP: Gva = Gva(0xFFF0);

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    id: VcpuId,
    fd: VcpuFd,
    /// The mapping that starts with `kvm_run`.
    run_mapping: RunMapping,
    /// The lines of the last way in and out.
    crossing: Option<Crossing>,
    /// Whether KVM copies the registers into `kvm_run` at every exit, and back from there when told so
    /// (KVM_CAP_SYNC_REGS). Else each takes an ioctl.
    syncs_registers: bool,
    /// Whether KVM could do the same with control registers and segments.
    can_sync_special: bool,
    /// Whether KVM takes those and pending events at an entry.
    can_sync_all: bool,
    /// Whether it does.
    syncs_special: bool,
    /// Whether the registers to start with wait in `kvm_run`, and KVM has not been told of them yet.
    has_waiting_registers: AtomicBool,
    /// Writes that KVM keeps until the next exit, once the guest has asked for that.
    coalesced: Option<Coalesced>,
}

impl Vcpu {
    /// Creates the vCPU `id` of a VM.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn create(kvm: &Kvm, vm: &VmFd, id: VcpuId) -> Result<Self> {
        let mapping_size = mapping_size(vm)?;
        // kvm-ioctls maps `kvm_run` in the same call.
        let (fd, created_at) = Origin::of(vm.create_vcpu(id.number().into()));
        let mut fd = fd.map_err(Error::kvm("KVM_CREATE_VCPU"))?;
        let syncable = kvm.check_extension_int(Cap::SyncRegs).cast_unsigned();
        let syncs_registers = syncable & KVM_SYNC_X86_REGS != 0;
        if syncs_registers {
            fd.set_sync_valid_reg(SyncReg::Register);
        }
        let hva = std::ptr::from_mut(fd.get_kvm_run()) as u64;
        let run_mapping = RunMapping { hva, size: mapping_size as u64, mapped_at: created_at };
        Ok(Self {
            id,
            fd,
            run_mapping,
            crossing: None,
            syncs_registers,
            can_sync_special: syncable & KVM_SYNC_X86_SREGS != 0,
            can_sync_all: syncable & SYNC_ALL == SYNC_ALL,
            syncs_special: false,
            has_waiting_registers: AtomicBool::new(false),
            coalesced: None,
        })
    }

    /// KVM's handle of it, which knows all its registers.
    ///
    /// # Errors
    /// [`Error::Kvm`] when KVM does not take those that have waited.
    pub(crate) fn fd(&self) -> Result<&VcpuFd> {
        if self.has_waiting_registers.load(Ordering::Acquire) {
            let waiting = self.fd.sync_regs();
            self.fd.set_sregs(&waiting.sregs).map_err(Error::kvm("KVM_SET_SREGS"))?;
            self.fd.set_regs(&waiting.regs).map_err(Error::kvm("KVM_SET_REGS"))?;
            self.has_waiting_registers.store(false, Ordering::Release);
        }
        Ok(&self.fd)
    }

    /// Lets KVM finish what the last exit has begun: the answer to a read goes into its register only at the next entry.
    /// Nothing else happens at this one. Usually gives [`Exit::Interrupted`]; an access to several places gives the next.
    #[track_caller]
    pub(crate) fn finish_exit(&mut self) -> Exit<'_> {
        self.interrupt_next_entry();
        self.cross(Origin::here()).exit
    }

    /// Sets the registers that a vCPU runs with and what it is about to be interrupted by, without an ioctl for each where
    /// KVM takes them at an entry. At this one nothing else happens, and no exit may be unfinished.
    ///
    /// # Errors
    /// [`Error::Kvm`] when KVM does not take them.
    pub(crate) fn enter_with(
        &mut self,
        regs: &kvm_regs,
        sregs: &kvm_sregs,
        events: &kvm_vcpu_events,
    ) -> Result<()> {
        *self.has_waiting_registers.get_mut() = false;
        if !self.can_sync_all {
            self.set_special_registers(sregs)?;
            self.set_registers(regs)?;
            return self.fd.set_vcpu_events(events).map_err(Error::kvm("KVM_SET_VCPU_EVENTS"));
        }
        *self.fd.sync_regs_mut() = kvm_sync_regs { regs: *regs, sregs: *sregs, events: *events };
        for part in [SyncReg::Register, SyncReg::SystemRegister, SyncReg::VcpuEvents] {
            self.fd.set_sync_dirty_reg(part);
        }
        self.interrupt_next_entry();
        let errno = match self.cross(Origin::here()).exit {
            Exit::Interrupted => None,
            Exit::RunFailed(errno) => Some(errno),
            _ => Some(libc::EBUSY),
        };
        self.clear_interruption();
        let failed =
            |errno| Error::kvm("KVM_RUN with the registers of a snapshot")(kvm_ioctls::Error::new(errno));
        errno.map_or(Ok(()), |errno| Err(failed(errno)))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> VcpuId {
        self.id
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
    /// As [`CpuMode::set`].
    pub fn start_in(&self, mode: &CpuMode) -> Result<RegisterOrigins> {
        mode.set(self.fd()?)
    }

    /// Gives the first vCPU, which was just made, the registers it starts with. KVM takes them over when it is first
    /// entered, if it can, or when somebody looks at them or changes them before.
    ///
    /// # Errors
    /// As [`CpuMode::set`].
    pub(crate) fn begin_in(&mut self, mode: &CpuMode) -> Result<RegisterOrigins> {
        let Some((sregs, regs)) = mode.registers().filter(|_| self.can_sync_all) else {
            return self.start_in(mode);
        };
        let waiting = self.fd.sync_regs_mut();
        let special = put(&mut waiting.sregs, sregs);
        let general = put(&mut waiting.regs, regs);
        *self.has_waiting_registers.get_mut() = true;
        Ok(RegisterOrigins { special, general })
    }

    /// How often the guest's time-stamp counter counts, in kHz; 0 where KVM cannot tell.
    #[must_use]
    pub fn tsc_khz(&self) -> u32 {
        self.fd.get_tsc_khz().unwrap_or_default()
    }

    /// Lets the guest run until something needs the host.
    ///
    /// CROSSING 1, host -> guest: KVM_RUN. The CPU loads the guest's registers and page tables and continues at the
    /// guest's RIP; this thread executes guest code until the call returns with the reason for the exit. The guest
    /// may rely on its registers being as the host left them; the host relies on nothing the guest left but what
    /// KVM wrote into `kvm_run`.
    #[track_caller]
    pub fn enter_guest(&mut self) -> Exited<'_> {
        self.cross(Origin::here())
    }

    /// Enters for the line `returned`. Not tracked itself, so that its own lines are seen.
    fn cross(&mut self, returned: Origin) -> Exited<'_> {
        if std::mem::take(self.has_waiting_registers.get_mut()) {
            self.fd.set_sync_dirty_reg(SyncReg::Register);
            self.fd.set_sync_dirty_reg(SyncReg::SystemRegister);
        }
        let (result, entered) = Origin::of(self.fd.run().map(drop));
        if let Some(coalesced) = &self.coalesced {
            coalesced.drain(&mut self.fd);
        }
        let place = self.syncs_registers.then(|| {
            let has_special = self.syncs_special;
            Place::of(self.fd.sync_regs_mut(), has_special)
        });
        let (exit, read) = match result {
            Ok(()) => Origin::of(exit::read(self.fd.get_kvm_run(), self.run_mapping.size as usize)),
            Err(error) => Origin::of(match error.errno() {
                libc::EINTR | libc::EAGAIN => Exit::Interrupted,
                errno => Exit::RunFailed(errno),
            }),
        };
        self.crossing = Some(Crossing { entered, read, returned });
        Exited { exit, place }
    }

    /// The lines of the last way in and out; `None` before the first.
    #[must_use]
    pub fn crossing(&self) -> Option<Crossing> {
        self.crossing
    }

    /// The memory that this vCPU shares with KVM.
    #[must_use]
    pub fn run_mapping(&self) -> RunMapping {
        self.run_mapping
    }

    /// What `kvm_run` says of port I/O, when the last exit was one.
    pub fn last_port_io(&mut self) -> Option<PortIo> {
        exit::port_io(self.fd.get_kvm_run())
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
        stop.attach(self.id, self.fd.get_kvm_run())
    }

    /// What it is about, as KVM has it where there are interrupt controllers.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub(crate) fn life(&self) -> Result<Life> {
        let state = self.fd.get_mp_state().map_err(Error::kvm("KVM_GET_MP_STATE"))?;
        Ok(match state.mp_state {
            // Until INIT and SIPI have come.
            KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => Life::Unstarted,
            KVM_MP_STATE_HALTED => Life::Halted {
                interrupts_enabled: self.registers()?.rflags & RFlags::INTERRUPT_FLAG.bits() != 0,
            },
            _ => Life::Runs,
        })
    }

    /// Has KVM run it though nobody has sent INIT and SIPI.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub(crate) fn wake(&self) -> Result<()> {
        let state = kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE };
        self.fd.set_mp_state(state).map_err(Error::kvm("KVM_SET_MP_STATE"))
    }

    /// The general registers, RIP and RFLAGS.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn registers(&self) -> Result<kvm_regs> {
        self.fd()?.get_regs().map_err(Error::kvm("KVM_GET_REGS"))
    }

    /// The same after an exit or its answer, without an ioctl where KVM hands them over with every exit.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn registers_after_exit(&self) -> Result<kvm_regs> {
        let are_synced = self.syncs_registers && self.crossing.is_some();
        if are_synced { Ok(self.fd.sync_regs().regs) } else { self.registers() }
    }

    /// Sets the general registers, RIP and RFLAGS.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set_registers(&self, registers: &kvm_regs) -> Result<()> {
        self.fd()?.set_regs(registers).map_err(Error::kvm("KVM_SET_REGS"))
    }

    /// Segments, descriptor tables and control registers.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn special_registers(&self) -> Result<kvm_sregs> {
        self.fd()?.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))
    }

    /// Sets segments, descriptor tables and control registers.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set_special_registers(&self, registers: &kvm_sregs) -> Result<()> {
        self.fd()?.set_sregs(registers).map_err(Error::kvm("KVM_SET_SREGS"))
    }

    /// x87 and SSE registers.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn fpu(&self) -> Result<kvm_fpu> {
        self.fd.get_fpu().map_err(Error::kvm("KVM_GET_FPU"))
    }

    /// Sets the x87 and SSE registers.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set_fpu(&self, fpu: &kvm_fpu) -> Result<()> {
        self.fd.set_fpu(fpu).map_err(Error::kvm("KVM_SET_FPU"))
    }

    /// Interrupts the guest for system management, at its next entry.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub(crate) fn interrupt_for_system_management(&self) -> Result<()> {
        self.fd()?.smi().map_err(Error::kvm("KVM_SMI"))
    }

    /// Tells KVM what to stop at for a debugger: steps, `int3`, the four hardware breakpoints. The default is nothing.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set_guest_debug(&self, debug: &kvm_guest_debug) -> Result<()> {
        self.fd()?.set_guest_debug(debug).map_err(Error::kvm("KVM_SET_GUEST_DEBUG"))
    }

    /// Makes every access to registers an ioctl, as on hosts without KVM_CAP_SYNC_REGS.
    ///
    /// # Errors
    /// [`Error::Kvm`] when KVM does not take those that have waited.
    pub fn forgo_register_sync(&mut self) -> Result<()> {
        self.fd()?;
        self.tell_page_tables(false);
        self.fd.clear_sync_valid_reg(SyncReg::Register);
        (self.syncs_registers, self.can_sync_special, self.can_sync_all) = (false, false, false);
        Ok(())
    }

    /// Lets KVM copy CR3 into `kvm_run` at every exit, or not, for [`Place::page_tables`]. That takes a tenth of a
    /// microsecond an exit, where the ioctl would take seven; a KVM without KVM_SYNC_X86_SREGS does not do it.
    pub fn tell_page_tables(&mut self, is_wanted: bool) {
        self.syncs_special = is_wanted && self.can_sync_special;
        if self.syncs_special {
            self.fd.set_sync_valid_reg(SyncReg::SystemRegister);
        } else {
            self.fd.clear_sync_valid_reg(SyncReg::SystemRegister);
        }
    }

    /// The registers of a hypercall, after the exit it made.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn hypercall_registers(&mut self) -> Result<HypercallRegisters> {
        // By reference: `sync_regs` would copy the control registers, too.
        let registers = if self.syncs_registers { self.fd.sync_regs_mut().regs } else { self.registers()? };
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

    /// Shows the writes that KVM has kept since the last exit, as each exit does.
    pub(crate) fn drain_coalesced(&mut self) {
        if let Some(coalesced) = &self.coalesced {
            coalesced.drain(&mut self.fd);
        }
    }

    /// The page tables, or `None` while paging is off.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn page_tables(&self) -> Result<Option<PageTables>> {
        Ok(PageTables::of(&self.special_registers()?))
    }

    /// RIP after an exit, or `None` when KVM does not tell it. After port output it is at the instruction or behind it, as
    /// the KVM has it.
    #[must_use]
    pub fn rip(&self) -> Option<Gva> {
        self.registers_after_exit().ok().map(|registers| Gva(registers.rip))
    }

    /// Whether the guest has interrupts enabled, after an exit. KVM keeps it in `kvm_run`: no ioctl.
    pub fn interrupts_enabled(&mut self) -> bool {
        self.fd.get_kvm_run().if_flag != 0
    }
}

/// All that KVM may take at an entry.
const SYNC_ALL: u32 = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

/// Writes `value`. Gives the line that had it written.
#[track_caller]
fn put<T>(place: &mut T, value: T) -> Origin {
    *place = value;
    Origin::here()
}

/// The size of the mapping that a vCPU shares with KVM.
fn mapping_size(vm: &VmFd) -> Result<usize> {
    // kvm-ioctls has asked KVM_GET_VCPU_MMAP_SIZE when it made the VM.
    let size = vm.run_size();
    if size < size_of::<kvm_bindings::kvm_run>() {
        let source = io::Error::other(format!("{size} bytes do not hold a kvm_run"));
        return Err(Error::Kvm { call: "KVM_GET_VCPU_MMAP_SIZE", source });
    }
    Ok(size)
}
