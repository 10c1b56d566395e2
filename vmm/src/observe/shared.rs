//! `Shared`: one observer that watches the vCPUs of a machine, each on its thread.
//!
//! Each vCPU has a `Shared` of its own, which takes the observer for the length of a call and says first whose exit it is
//! told of. What a guest asks of its own vCPU, the exits so far, is counted without that.

use std::sync::{Mutex, MutexGuard, PoisonError};

use shared_abi::hypercall::{Answer, Registers};

use crate::cpus::VcpuId;
use crate::exit::Exit;
use crate::log::LogRecord;
use crate::next::Next;
use crate::observe::{ExitCounts, Mark, Observer};
use crate::vcpu::Place;

/// A vCPU's share in the observer of a machine.
#[derive(Debug)]
pub(crate) struct Shared<'a, O> {
    vcpu: VcpuId,
    counts: ExitCounts,
    observer: &'a Mutex<O>,
}

impl<'a, O: Observer> Shared<'a, O> {
    /// The share of `vcpu`, which has had the exits `counts`.
    pub(crate) fn new(vcpu: VcpuId, counts: ExitCounts, observer: &'a Mutex<O>) -> Self {
        Self { vcpu, counts, observer }
    }

    /// The observer, told that it is this vCPU's turn. One that has panicked ends the run; until then it is one.
    fn take(&self) -> MutexGuard<'a, O> {
        let mut observer = self.observer.lock().unwrap_or_else(PoisonError::into_inner);
        observer.on_vcpu(self.vcpu);
        observer
    }
}

impl<O: Observer> Observer for Shared<'_, O> {
    fn on_entry(&mut self) {
        self.take().on_entry();
    }

    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.counts.on_exit(exit, place);
        self.take().on_exit(exit, place);
    }

    fn on_call(&mut self, call: &Registers, answer: Option<Answer>) {
        self.take().on_call(call, answer);
    }

    fn on_log(&mut self, record: &LogRecord) {
        self.take().on_log(record);
    }

    fn on_mark(&mut self, mark: &Mark) {
        self.take().on_mark(mark);
    }

    fn on_answer(&mut self, next: &Next) {
        self.take().on_answer(next);
    }

    /// Those of this vCPU.
    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}
