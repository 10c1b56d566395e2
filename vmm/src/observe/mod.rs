//! Observers: told of every exit, can change none.
//!
//! Counting, tracing and debugging watch the run loop from outside, so the loop stays a table. An observer is a type
//! parameter of the loop: what it does not do costs nothing.

mod counts;

pub use counts::ExitCounts;

use crate::exit::Exit;

/// Something that watches the exits of a vCPU.
pub trait Observer {
    /// Called for every exit, before it is answered.
    fn on_exit(&mut self, exit: &Exit<'_>);

    /// The exits so far, by kind; a guest may ask for them.
    fn counts(&self) -> &ExitCounts;
}
