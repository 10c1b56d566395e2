//! Counting the instructions of a test.
//!
//! The guest is stepped from its start. The count begins at the test's function and ends when that returns or the guest
//! stops; then the guest runs on at full speed. What the function calls counts, handlers of exceptions included. A step
//! costs some 10 µs, so only a test that has such a budget is stepped.

use kvm_bindings::kvm_guest_debug;
use shared_abi::Gva;

use crate::error::Result;
use crate::exit::{DebugEvent, Exit};
use crate::observe::{ExitCounts, Observer};
use crate::report::RunReport;
use crate::vcpu::Place;
use crate::vm::Vm;

/// Runs a guest, and counts the instructions of the function at `function`.
///
/// # Errors
/// What the host could not do.
pub(super) fn run_and_count(vm: &mut Vm, function: Gva) -> Result<(RunReport, u64)> {
    let mut counter =
        Counter { function, state: State::Before, instructions: 0, exits: ExitCounts::default() };
    let mut session = vm.session()?;
    session.stop_after_each_instruction()?;
    let stop = loop {
        let stop = session.resume(&mut counter)?;
        if stop.step().is_none() {
            break stop;
        }
        if counter.state == State::Behind {
            session.stop_for(&kvm_guest_debug::default())?;
        }
    };
    let report = vm.report(stop, counter.exits);
    Ok((report, counter.instructions))
}

/// Watches the steps of a guest.
struct Counter {
    function: Gva,
    state: State,
    instructions: u64,
    exits: ExitCounts,
}

/// Where the guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// On its way to the function.
    Before,
    /// In the function or what it calls; at its first instruction RSP was this.
    Inside(Gva),
    /// Behind it.
    Behind,
}

impl Counter {
    fn step(&mut self, event: DebugEvent, place: Option<Place>) {
        match self.state {
            State::Before if event.pc == self.function => {
                // Where KVM does not tell RSP, the function's end is the guest's.
                self.state = State::Inside(place.map_or(Gva(u64::MAX), |place| place.rsp));
            }
            State::Inside(start) => {
                self.instructions += 1;
                // The return address is gone: the function has returned.
                if place.is_some_and(|place| place.rsp > start) {
                    self.state = State::Behind;
                }
            }
            State::Before | State::Behind => {}
        }
    }
}

impl Observer for Counter {
    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.exits.on_exit(exit, place);
        if let Exit::Debug(event) = exit {
            self.step(*event, place);
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.exits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_count_from_the_functions_first_to_its_return() {
        let function = Gva(0x1000);
        let mut counter =
            Counter { function, state: State::Before, instructions: 0, exits: ExitCounts::default() };
        // RIP and RSP after each step: a call, two instructions that use the stack, the return, and what follows.
        for (rip, rsp) in [(0x10, 80), (0x1000, 72), (0x1001, 64), (0x1002, 72), (0x11, 80), (0x12, 80)] {
            let event = DebugEvent { exception: 1, pc: Gva(rip), dr6: 1 << 14 };
            counter.step(event, Some(Place { rip: Gva(rip), rsp: Gva(rsp), rbp: Gva(0), page_tables: None }));
        }
        assert_eq!((counter.instructions, counter.state), (3, State::Behind));
    }
}
