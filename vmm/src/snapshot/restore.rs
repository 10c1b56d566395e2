//! Going back: the same machine, as it was when the snapshot was taken.
//!
//! Of RAM only what has changed is copied ([`GuestMemory::revert`](crate::memory::GuestMemory::revert)).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Snapshot;
use super::state::State;
use crate::cpus::VcpuId;
use crate::error::{Error, Result};
use crate::hypercall::Journal;
use crate::machine::Machine;
use crate::vm::Vm;

impl Vm {
    /// Puts this machine back to where `snapshot` was taken. It must be one of this machine, or of the one that this
    /// machine comes from.
    ///
    /// Its time limit counts anew with the next run, even if it was reached; another request to stop stays.
    ///
    /// # Errors
    /// [`Error::ForeignSnapshot`]; [`Error::NoSnapshot`] when the guest has opened channels since, or is in the middle of
    /// an access that nothing answers; or what the host could not do. Then the machine is not to be run any more.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<()> {
        let parts = &snapshot.0;
        if !Arc::ptr_eq(&self.lineage, &parts.lineage) {
            return Err(Error::ForeignSnapshot);
        }
        self.check_no_channels()?;
        self.finish_exits()?;
        self.machine.files().close_all();
        let memory = &self.machine.memory;
        match memory.frozen() {
            Some(frozen) if Arc::ptr_eq(&frozen, &parts.ram) => memory.revert(&frozen)?,
            _ => memory.become_frozen(&parts.ram)?,
        }
        let number = snapshot.next_number();
        for (vcpu, state) in self.vcpus_mut().zip(&parts.state.vcpus) {
            state.restore(vcpu, parts.state.answer_to(vcpu.id(), number))?;
        }
        self.machine.stop.forget_time_limit();
        self.go_on_from(&parts.state)
    }

    /// What is left to do when RAM and vCPUs are those of `snapshot`.
    pub(super) fn go_on_from(&mut self, state: &State) -> Result<()> {
        self.stopped = state.stopped;
        self.is_continued = true;
        self.machine.hold(state)
    }
}

impl Snapshot {
    /// A number for each time that a machine goes on from here, from 1.
    pub(super) fn next_number(&self) -> u64 {
        self.0.continuations.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl State {
    /// What the vCPU `id` is answered, if it has asked for the snapshot.
    pub(super) fn answer_to(&self, id: VcpuId, number: u64) -> Option<u64> {
        self.asked_by.contains(&id).then_some(number)
    }
}

impl Machine {
    /// Lets devices and host hold what they held.
    fn hold(&self, state: &State) -> Result<()> {
        if let (Some(ioapic), Some(held)) = (self.ioapic(), &state.ioapic) {
            ioapic.set_state(held)?;
        }
        if let Some(crew) = &self.crew {
            for (id, vcpu) in (0..).filter_map(VcpuId::new).zip(&state.vcpus) {
                vcpu.life.into_iter().for_each(|life| crew.set_life(id, life));
            }
        }
        self.console().set_waiting(&state.console);
        self.panic_text().clone_from(&state.panic_text);
        *self.journal() = Journal::default();
        self.askers().clone_from(&state.asked_by);
        *self.identity() = 0;
        self.advance_clock(state.monotonic_ns);
        // Once too often is no harm: the guest is told when there is input, and there is some.
        if state.awaits_input { self.tell_next_arrival() } else { Ok(()) }
    }
}
