//! Observers: told of every exit, can change none.
//!
//! Counting, tracing and debugging watch the run loop from outside, so the loop stays a table. An observer is a type
//! parameter of the loop: what it does not do costs nothing. Several watch at once as a pair, each in an `Option` where
//! it may be absent. One that watches several vCPUs is lent to their threads in turns (`shared.rs`); with one vCPU there
//! is no lock.
//!
//! Three of them keep a ledger, an [`Entry`] an exit: [`Trace`] writes each down, [`Stats`] adds them up by line of the
//! guest, [`Timeline`] draws them. What is common to them is done by `meter.rs`: it reads the clock and the guest's
//! chain of callers, takes no memory, and asks the image for no name. Names are found when somebody reads.
//!
//! ```no_run
//! use vmm::observe::Stats;
//! use vmm::{KernelSource, Vm, VmConfig};
//!
//! let mut vm = Vm::build(VmConfig::new(KernelSource::File("kernel.elf".into())))?;
//! let mut stats = Stats::new(&vm);
//! vm.run_observed(&mut stats)?;
//! println!("{}", stats.summary(&vm.symbols()));
//! # Ok::<(), vmm::Error>(())
//! ```

mod callers;
mod counts;
mod entry;
mod filter;
mod handlers;
mod instruction;
mod lines;
mod meter;
mod sample;
mod shared;
mod stats;
mod summary;
mod table;
mod timeline;
mod trace;

pub use callers::{Callers, MAX_CALLERS};
pub use counts::ExitCounts;
pub use entry::{Data, Entry, Kind, Site, Target};
pub use filter::Filter;
pub use handlers::Handlers;
pub use sample::{MAX_EXITS, Sample, Sampled, SampledExit, Span};
pub(crate) use shared::Shared;
pub use stats::{MAX_SITES, Stats};
pub use summary::{KindRow, Line, LineRow, Summary, Tally, VcpuRow};
pub use timeline::Timeline;
pub use trace::Trace;

use shared_abi::hypercall::{Answer, Registers};

use crate::cpus::VcpuId;
use crate::exit::Exit;
use crate::log::LogRecord;
use crate::next::Next;
use crate::vcpu::Place;

/// Something that watches the exits of vCPUs. Of its calls only two are needed.
///
/// Where several vCPUs run it is told of them in turns, each call by the thread of the vCPU that it is about.
pub trait Observer: Send {
    /// Whether [`Place::page_tables`] is wanted; asked once, before the guest is entered first.
    fn needs_page_tables(&self) -> bool {
        false
    }

    /// Called before another vCPU's turn: the calls from here on are about this one. They start with the first.
    fn on_vcpu(&mut self, _vcpu: VcpuId) {}

    /// Called just before the guest is entered.
    fn on_entry(&mut self) {}

    /// Called for every exit, before it is answered. `place` is where the guest left, when KVM tells that for nothing.
    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>);

    /// Called when a hypercall was done, before the guest has its answer; there is none where the call ends the run.
    fn on_call(&mut self, _call: &Registers, _answer: Option<Answer>) {}

    /// Called when the guest has added a record to the log.
    fn on_log(&mut self, _record: &LogRecord) {}

    /// Called when the guest begins or ends a span.
    fn on_mark(&mut self, _mark: &Mark) {}

    /// Called when the exit was answered.
    fn on_answer(&mut self, _next: &Next) {}

    /// The exits so far, by kind; a guest may ask for those of a vCPU.
    fn counts(&self) -> &ExitCounts;
}

/// The edge of a span that a guest has named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It begins, and this is its name.
    Begin(String),
    /// The one that began last ends.
    End,
}

/// One that somebody else owns.
impl<O: Observer + ?Sized> Observer for &mut O {
    fn needs_page_tables(&self) -> bool {
        (**self).needs_page_tables()
    }

    fn on_vcpu(&mut self, vcpu: VcpuId) {
        (**self).on_vcpu(vcpu);
    }

    fn on_entry(&mut self) {
        (**self).on_entry();
    }

    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        (**self).on_exit(exit, place);
    }

    fn on_call(&mut self, call: &Registers, answer: Option<Answer>) {
        (**self).on_call(call, answer);
    }

    fn on_log(&mut self, record: &LogRecord) {
        (**self).on_log(record);
    }

    fn on_mark(&mut self, mark: &Mark) {
        (**self).on_mark(mark);
    }

    fn on_answer(&mut self, next: &Next) {
        (**self).on_answer(next);
    }

    fn counts(&self) -> &ExitCounts {
        (**self).counts()
    }
}

/// Two that watch; the first one counts.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn needs_page_tables(&self) -> bool {
        self.0.needs_page_tables() || self.1.needs_page_tables()
    }

    fn on_vcpu(&mut self, vcpu: VcpuId) {
        self.0.on_vcpu(vcpu);
        self.1.on_vcpu(vcpu);
    }

    fn on_entry(&mut self) {
        self.0.on_entry();
        self.1.on_entry();
    }

    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.0.on_exit(exit, place);
        self.1.on_exit(exit, place);
    }

    fn on_call(&mut self, call: &Registers, answer: Option<Answer>) {
        self.0.on_call(call, answer);
        self.1.on_call(call, answer);
    }

    fn on_log(&mut self, record: &LogRecord) {
        self.0.on_log(record);
        self.1.on_log(record);
    }

    fn on_mark(&mut self, mark: &Mark) {
        self.0.on_mark(mark);
        self.1.on_mark(mark);
    }

    fn on_answer(&mut self, next: &Next) {
        self.0.on_answer(next);
        self.1.on_answer(next);
    }

    fn counts(&self) -> &ExitCounts {
        self.0.counts()
    }
}

/// One that may be absent. Then it counts nothing either: as the first of a pair it must be there.
impl<O: Observer> Observer for Option<O> {
    fn needs_page_tables(&self) -> bool {
        self.as_ref().is_some_and(O::needs_page_tables)
    }

    fn on_vcpu(&mut self, vcpu: VcpuId) {
        self.iter_mut().for_each(|own| own.on_vcpu(vcpu));
    }

    fn on_entry(&mut self) {
        self.iter_mut().for_each(O::on_entry);
    }

    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.iter_mut().for_each(|own| own.on_exit(exit, place));
    }

    fn on_call(&mut self, call: &Registers, answer: Option<Answer>) {
        self.iter_mut().for_each(|own| own.on_call(call, answer));
    }

    fn on_log(&mut self, record: &LogRecord) {
        self.iter_mut().for_each(|own| own.on_log(record));
    }

    fn on_mark(&mut self, mark: &Mark) {
        self.iter_mut().for_each(|own| own.on_mark(mark));
    }

    fn on_answer(&mut self, next: &Next) {
        self.iter_mut().for_each(|own| own.on_answer(next));
    }

    fn counts(&self) -> &ExitCounts {
        self.as_ref().map_or(&ExitCounts::NONE, O::counts)
    }
}
