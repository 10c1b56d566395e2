//! New machines from a snapshot.
//!
//! Each is a VM of its own, with CPUs and slots; what would take long is not done again: no image is read, no table
//! written, no page copied, and KVM is not asked what a CPU can do.

use std::time::Duration;

use kvm_ioctls::Kvm;

use super::Snapshot;
use crate::boot::contract::Contract;
use crate::config::SnapshotCalls;
use crate::console::Console;
use crate::cpus::{VcpuCount, VcpuId};
use crate::error::{Error, Result};
use crate::hypercall::{Files, Grant};
use crate::input::Input;
use crate::interrupts;
use crate::log::Log;
use crate::machine::{Machine, Parts};
use crate::memory::GuestMemory;
use crate::memory_slots::MemorySlots;
use crate::vcpu::Vcpu;
use crate::vm::{Vm, check_vcpu_count, open_kvm};

/// What a machine has outside itself, and so what no snapshot has. The default is nobody: output is thrown away, input is
/// at its end.
#[derive(Debug)]
pub struct Surroundings {
    /// Where the guest's console output goes; text that waited for the end of its line goes there too.
    pub console: Console,
    /// Where its console input comes from.
    pub input: Input,
    /// Where its log records go.
    pub log: Log,
    /// The directory that it may use, if any.
    pub directory: Option<Grant>,
    /// What becomes of its wish to be kept.
    pub snapshots: SnapshotCalls,
    /// How long it may run.
    pub timeout: Option<Duration>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            console: Console::discard(),
            input: Input::bytes([]),
            log: Log::discard(),
            directory: None,
            snapshots: SnapshotCalls::default(),
            timeout: None,
        }
    }
}

impl Vm {
    /// Puts the machine, which stands, among other people and files. Text that waits for the end of its line goes to the new
    /// console; files that the guest had open are closed.
    ///
    /// # Errors
    /// What the host could not do.
    pub fn surround(&mut self, surroundings: Surroundings) -> Result<()> {
        self.machine.surround(surroundings)
    }
}

impl Snapshot {
    /// Makes a machine that goes on from here. It shares all pages of RAM with the snapshot until it writes to them.
    ///
    /// # Errors
    /// What the host could not do.
    pub fn spawn(&self, surroundings: Surroundings) -> Result<Vm> {
        let parts = &self.0;
        let (state, lineage) = (&parts.state, &parts.lineage);
        let kvm = self.kvm()?;
        let count = VcpuCount::new(state.vcpus.len() as u64).expect("it was taken of a machine");
        check_vcpu_count(kvm, count)?;
        let memory = GuestMemory::of_frozen(&parts.ram)?;
        let files = Files::new(surroundings.directory)?;
        let vm = kvm.create_vm().map_err(Error::kvm("KVM_CREATE_VM"))?;
        let mut slots = MemorySlots::new(kvm, &memory, count);
        slots.register_like(&vm, &state.told)?;
        if state.ioapic.is_some() {
            interrupts::enable_local_apics(&vm)?;
        }
        let create = |id: VcpuId| Vcpu::create(kvm, &vm, id);
        let mut vcpus = count.ids().map(create).collect::<Result<Vec<_>>>()?;
        if let Some(clock) = &state.clock {
            vm.set_clock(&kvm_bindings::kvm_clock_data { clock: clock.clock, ..Default::default() })
                .map_err(Error::kvm("KVM_SET_CLOCK"))?;
        }
        let number = self.next_number();
        for (vcpu, held) in vcpus.iter_mut().zip(&state.vcpus) {
            held.start(vcpu, state.answer_to(vcpu.id(), number))?;
        }
        let others = vcpus.split_off(1);
        let vcpu = vcpus.pop().expect("a machine has one vCPU at least");
        let machine = Machine::new(Parts {
            vm,
            memory,
            slots,
            vcpus: count,
            interrupts: state.ioapic.is_some(),
            time_limit: surroundings.timeout,
            has_hypercalls: lineage.blueprint.contract == Contract::Required,
            arguments: state.arguments.clone(),
            console: surroundings.console,
            input: surroundings.input,
            snapshots: surroundings.snapshots,
            log: surroundings.log,
            files,
        })?;
        let lineage = lineage.clone();
        let mut vm =
            Vm { vcpu, others, stopped: state.stopped, machine, lineage, runs: 0, is_continued: true };
        vm.go_on_from(state)?;
        Ok(vm)
    }

    fn kvm(&self) -> Result<&Kvm> {
        if let Some(kvm) = self.0.kvm.get() {
            return Ok(kvm);
        }
        let opened = open_kvm()?;
        Ok(self.0.kvm.get_or_init(|| opened))
    }
}
