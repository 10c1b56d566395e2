//! Observers: told of every exit, can change none.
//!
//! Counting, tracing and debugging watch the run loop from outside, so the loop stays a table. An observer is a type
//! parameter of the loop: what it does not do costs nothing.

mod counts;

pub use counts::ExitCounts;

use crate::exit::Exit;
use crate::next::Next;
use crate::vcpu::Place;

/// Something that watches the exits of a vCPU. Of the three calls only one is needed.
pub trait Observer {
    /// Called just before the guest is entered.
    fn on_entry(&mut self) {}

    /// Called for every exit, before it is answered. `place` is where the guest left, when KVM tells that for nothing.
    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>);

    /// Called when the exit was answered.
    fn on_answer(&mut self, _next: &Next) {}

    /// The exits so far, by kind; a guest may ask for them.
    fn counts(&self) -> &ExitCounts;
}
