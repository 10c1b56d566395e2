//! `Session`: a run, in one piece or in many.
//!
//! Between two pieces the guest stands still and can be looked at and changed. Debuggers run guests like that, and
//! whoever counts or follows single instructions. Signals reach the first vCPU, and the time limit is kept, from the
//! session's start to its end. The other vCPUs have threads while a piece runs ([`crew`](crate::crew)), and none between
//! two.

use std::iter;

use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};

use crate::error::Result;
use crate::exit::DebugEvent;
use crate::next::StopReason;
use crate::observe::Observer;
use crate::run_loop;
use crate::snapshot::Snapshot;
use crate::stop::{Attached, Watchdog};
use crate::vm::Vm;

/// A run of a machine, made ready.
#[derive(Debug)]
pub struct Session<'a> {
    vm: &'a mut Vm,
    _attached: Attached,
    _watchdog: Option<Watchdog>,
}

impl<'a> Session<'a> {
    /// Makes ready: this thread is now the first vCPU's.
    pub(crate) fn start(vm: &'a mut Vm) -> Result<Self> {
        let Vm { vcpu, machine, .. } = vm;
        let attached = vcpu.attach(&machine.stop)?;
        let watchdog =
            machine.time_limit.map(|limit| Watchdog::start(machine.stop.clone(), limit)).transpose()?;
        Ok(Self { vm, _attached: attached, _watchdog: watchdog })
    }

    /// Runs the guest until it stops. After [`StopReason::Debug`] and [`StopReason::Paused`] it can go
    /// on.
    ///
    /// # Errors
    /// Only what the host could not do.
    pub fn resume(&mut self, observer: &mut impl Observer) -> Result<StopReason> {
        let stop = self.run(observer);
        if let Ok(reason) = &stop
            && reason.step().is_some()
        {
            // Text waits for the end of its line, as it does when nobody steps.
            return stop;
        }
        // What the guest said last is shown even when the host fails, and while the time limit is still kept.
        let flushed = self.vm.machine.flush_console();
        let stop = stop?;
        flushed.map(|()| stop)
    }

    /// Runs the vCPUs until one of them ends this piece, and remembers which.
    fn run(&mut self, observer: &mut impl Observer) -> Result<StopReason> {
        let Vm { vcpu, others, machine, stopped, .. } = &mut *self.vm;
        machine.askers().clear();
        for vcpu in iter::once(&mut *vcpu).chain(&mut *others) {
            vcpu.tell_page_tables(observer.needs_page_tables());
        }
        match &machine.crew {
            None => {
                let ended = run_loop::run(vcpu, machine, observer)?;
                Ok(ended.expect("nobody else ends the run of the only vCPU"))
            }
            Some(crew) => {
                let (id, stop) = crew.run(vcpu, others, machine, observer)?;
                *stopped = id;
                Ok(stop)
            }
        }
    }

    /// Takes back a pause that came when the guest stood already.
    pub fn forget_pause(&mut self) {
        let Vm { vcpu, machine, .. } = &mut *self.vm;
        machine.stop.take_pause();
        vcpu.clear_interruption();
        if machine.stop.requested().is_some() {
            // That is no pause.
            vcpu.interrupt_next_entry();
        }
    }

    /// Has KVM stop each vCPU for what `debug` says, from the next piece on; the default is for nothing.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm).
    pub fn stop_for(&mut self, debug: &kvm_guest_debug) -> Result<()> {
        self.vm.vcpus().try_for_each(|vcpu| vcpu.set_guest_debug(debug))
    }

    /// Has KVM stop each vCPU after every instruction, from the next piece on: each ends with a
    /// [`DebugEvent`](DebugEvent::is_step). An instruction that needs the host is answered first.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm).
    pub fn stop_after_each_instruction(&mut self) -> Result<()> {
        let control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
        self.stop_for(&kvm_guest_debug { control, ..kvm_guest_debug::default() })
    }

    /// Keeps the machine as it is now, between two pieces.
    ///
    /// # Errors
    /// As [`Vm::snapshot`].
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        self.vm.snapshot()
    }

    /// The machine, which stands still.
    #[must_use]
    pub fn vm(&self) -> &Vm {
        self.vm
    }
}

impl StopReason {
    /// The step that a debugger wanted, if that is why the guest stopped.
    #[must_use]
    pub fn step(&self) -> Option<DebugEvent> {
        match self {
            Self::Debug(event) if event.is_step() => Some(*event),
            _ => None,
        }
    }
}
