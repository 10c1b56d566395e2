//! The limit of a round trip: a loop that knows KVM_RUN and what the guest must be told, and nothing else.

use std::path::Path;
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, SyncReg, VcpuExit, VcpuFd, VmFd};
use shared_abi::hypercall::encode_answer;
use shared_abi::ports;
use vmm::boot::{self, kernel::KernelImage};
use vmm::memory::GuestMemory;

use crate::Outcome;
use crate::ours::config;

/// A booted guest in the hands of whoever has the vCPU. Fields are dropped in order: the memory goes last.
pub(crate) struct Bare {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: GuestMemory,
}

impl Bare {
    /// The guest that does `what`, so `often` a run.
    pub(crate) fn build(guest: &Path, what: &str, often: u32) -> Outcome<Self> {
        let config = config(guest, what, often);
        let memory = GuestMemory::allocate(config.memory, config.backing)?;
        let mut image = KernelImage::open(&config.kernel)?;
        let boot = boot::prepare(&config, &mut image, &memory)?;
        let kvm = Kvm::new()?;
        let vm = kvm.create_vm()?;
        for (slot, range) in (0..).zip(memory.slots()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: range.gpa.0,
                memory_size: range.size,
                userspace_addr: range.hva,
            };
            // SAFETY: The range is mapped, and `Bare` drops the VM before the memory.
            unsafe { vm.set_user_memory_region(region)? };
        }
        let vcpu = vm.create_vcpu(0)?;
        vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
        boot.cpu.set(&vcpu)?;
        Ok(Self { vcpu, _vm: vm, _memory: memory })
    }

    /// The time to the guest's next exit with code 0. It reads zeros, and its hypercalls are not answered.
    pub(crate) fn run(&mut self) -> Outcome<Duration> {
        let start = Instant::now();
        loop {
            match self.vcpu.run()? {
                VcpuExit::IoOut(ports::EXIT, [0, ..]) => return Ok(start.elapsed()),
                VcpuExit::IoOut(ports::DEBUG_CONSOLE | ports::HYPERCALL, _) | VcpuExit::MmioWrite(..) => {}
                VcpuExit::IoIn(ports::DEBUG_CONSOLE, data) | VcpuExit::MmioRead(_, data) => data.fill(0),
                other => return Err(format!("the bare loop met {other:?}").into()),
            }
        }
    }

    /// The same for a guest that prints by each hypercall: `print` does, and the guest is told that it was done.
    pub(crate) fn run_printing(&mut self, mut print: impl FnMut() -> Outcome<()>) -> Outcome<Duration> {
        self.vcpu.set_sync_valid_reg(SyncReg::Register);
        let start = Instant::now();
        loop {
            match self.vcpu.run()? {
                VcpuExit::IoOut(ports::EXIT, [0, ..]) => return Ok(start.elapsed()),
                VcpuExit::IoOut(ports::HYPERCALL, _) => print()?,
                other => return Err(format!("the bare loop met {other:?}").into()),
            }
            let registers = &mut self.vcpu.sync_regs_mut().regs;
            (registers.rax, registers.rdi) = encode_answer(Ok(registers.rsi));
            self.vcpu.set_sync_dirty_reg(SyncReg::Register);
        }
    }
}
