//! The limit: a VM in the state of a snapshot, made and taken back by bare calls of KVM, and nothing else.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

use kvm_bindings::{
    CpuId, Msrs, kvm_debugregs, kvm_msr_entry, kvm_sync_regs, kvm_userspace_memory_region, kvm_xcrs,
    kvm_xsave,
};
use kvm_ioctls::{Kvm, SyncReg, VcpuFd, VmFd};
use shared_abi::Gpa;
use vmm::Snapshot;
use vmm::snapshot::state::VcpuState;

use crate::{Outcome, surroundings};

/// What a bare VM is made of.
pub(crate) struct Source {
    kvm: Kvm,
    file: File,
    size: usize,
    cpuid: Option<CpuId>,
    registers: kvm_sync_regs,
}

impl Source {
    /// The RAM and the registers that a machine of `snapshot` starts with. It is one of its own that is read, for whoever
    /// reads all of RAM has all its pages.
    pub(crate) fn new(snapshot: &Snapshot) -> Outcome<Self> {
        let vm = snapshot.spawn(surroundings())?;
        let mut ram = vec![0; vm.memory().size().bytes() as usize];
        vm.memory().read(Gpa(0), &mut ram)?;
        // SAFETY: The name ends with a NUL; the descriptor is new, so nobody else owns it.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"bare".as_ptr(), libc::MFD_CLOEXEC)) };
        io::Write::write_all(&mut &file, &ram)?;
        let VcpuState { cpuid, regs, sregs, events, .. } = &snapshot.state().vcpus[0];
        let cpuid =
            (!cpuid.is_empty()).then(|| CpuId::from_entries(cpuid)).transpose().map_err(|_| "many leaves")?;
        let registers = kvm_sync_regs { regs: *regs, sregs: *sregs, events: *events };
        Ok(Self { kvm: Kvm::new()?, file, size: ram.len(), cpuid, registers })
    }

    /// By bare calls: a VM that maps the file, and a vCPU that is about to go on.
    fn bare(&self) -> Outcome<Bare> {
        let ram = Ram::map(&self.file, self.size)?;
        let vm = self.kvm.create_vm()?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: self.size as u64,
            userspace_addr: ram.start as u64,
        };
        // SAFETY: The range is mapped, and `Bare` drops the VM before it.
        unsafe { vm.set_user_memory_region(region)? };
        let vcpu = vm.create_vcpu(0)?;
        if let Some(cpuid) = &self.cpuid {
            vcpu.set_cpuid2(cpuid)?;
        }
        vcpu.set_sregs(&self.registers.sregs)?;
        vcpu.set_regs(&self.registers.regs)?;
        Ok(Bare { vcpu, _vm: vm, _ram: ram, registers: self.registers, others: None })
    }

    /// One that has run to its first exit.
    pub(crate) fn to_first_exit(&self) -> Outcome<Bare> {
        let mut bare = self.bare()?;
        bare.vcpu.run()?;
        Ok(bare)
    }
}

/// A guest in the hands of whoever has the vCPU. Fields are dropped in order.
pub(crate) struct Bare {
    pub(crate) vcpu: VcpuFd,
    _vm: VmFd,
    _ram: Ram,
    registers: kvm_sync_regs,
    others: Option<Others>,
}

/// What a guest may have changed without an exit.
struct Others {
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    msrs: Msrs,
}

impl Bare {
    pub(crate) fn new(snapshot: &Snapshot) -> Outcome<Self> {
        let mut bare = Source::new(snapshot)?.bare()?;
        let kept: &[kvm_msr_entry] = &snapshot.state().vcpus[0].msrs;
        bare.others = Some(Others {
            xsave: bare.vcpu.get_xsave()?,
            xcrs: bare.vcpu.get_xcrs()?,
            debug: bare.vcpu.get_debug_regs()?,
            msrs: Msrs::from_entries(kept).map_err(|_| "too many registers")?,
        });
        Ok(bare)
    }

    /// The calls that cannot be left out: the last exit is finished, then all is set that the guest may have changed.
    pub(crate) fn go_back(&mut self) -> Outcome<()> {
        self.enter_at_once()?;
        let Others { xsave, xcrs, debug, msrs } = self.others.as_ref().ok_or("it was made to go back")?;
        self.vcpu.set_xcrs(xcrs)?;
        // SAFETY: No larger state was asked for by arch_prctl, so KVM reads 4096 bytes.
        unsafe { self.vcpu.set_xsave(xsave)? };
        self.vcpu.set_debug_regs(debug)?;
        self.vcpu.set_msrs(msrs)?;
        *self.vcpu.sync_regs_mut() = self.registers;
        for part in [SyncReg::Register, SyncReg::SystemRegister, SyncReg::VcpuEvents] {
            self.vcpu.set_sync_dirty_reg(part);
        }
        self.enter_at_once()
    }

    fn enter_at_once(&mut self) -> Outcome<()> {
        self.vcpu.set_kvm_immediate_exit(1);
        let entered = self.vcpu.run().map(drop);
        self.vcpu.set_kvm_immediate_exit(0);
        match entered {
            Err(error) if error.errno() == libc::EINTR => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }
}

/// A private mapping.
struct Ram {
    start: *mut libc::c_void,
    size: usize,
}

impl Ram {
    fn map(file: &File, size: usize) -> io::Result<Self> {
        let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_NORESERVE);
        // SAFETY: A new mapping at an address the kernel chooses touches no existing memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, rights, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { start, size }) }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: `map` mapped just this range, and the VM that knows of it is gone.
        unsafe { libc::munmap(self.start, self.size) };
    }
}
