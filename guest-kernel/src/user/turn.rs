//! A turn: a process runs, the kernel answers, until it gives way, waits or ends.
//!
//! This is what `vmm/src/run_loop.rs` is for a guest: enter, look why it came back, answer, repeat.

use alloc::boxed::Box;

use shared_abi::Gva;
use user_library::abi;

use super::calls::{self, Outcome};
use super::doors::{self, Arrival};
use super::end::{End, Wait};
use super::process::Process;
use super::setup;
use crate::cpu::flags;
use crate::exceptions::ExceptionFrame;

/// How a turn of a process has ended.
#[derive(Debug)]
pub(super) enum Turn {
    /// It could go on, and gives way.
    Paused,
    /// It could go on, and its time is up.
    TimeUp,
    /// It waits from now on.
    Waits,
    /// It waits as before: the turn has moved nothing.
    StillWaits,
    /// It is over.
    Ended(End),
}

impl Process {
    /// Runs it to its end, as the only process there is: nobody takes turns with it, and no timer is needed. What it would
    /// wait for does not come, except time.
    pub fn run_alone(&mut self) -> End {
        loop {
            match self.turn(|| false) {
                Turn::Ended(end) => return end,
                Turn::Waits | Turn::StillWaits => match self.wait {
                    Some(Wait::Typing) => self.is_patient = true,
                    Some(wait @ (Wait::Bytes | Wait::Room)) => return End::Stuck(wait),
                    Some(Wait::Until(_)) | None => core::hint::spin_loop(),
                },
                Turn::Paused | Turn::TimeUp => {}
            }
        }
    }

    /// Lets it run until it gives way, waits or ends, or its time is up: enter, look why it came back, answer, repeat.
    pub(super) fn turn(&mut self, is_time_up: impl Fn() -> bool) -> Turn {
        if self.wait.is_some() {
            match self.answer() {
                None => {}
                Some(Turn::Waits) => return Turn::StillWaits,
                Some(turn) => return turn,
            }
        }
        loop {
            let turn = match self.run(&is_time_up) {
                Arrival::Call => self.answer(),
                Arrival::Interrupt => None,
                Arrival::Fault if self.has_touched_its_stack() => None,
                Arrival::Fault => Some(Turn::Ended(End::Died(Box::new(self.registers.0)))),
            };
            if let Some(turn) = turn.or_else(|| is_time_up().then_some(Turn::TimeUp)) {
                return turn;
            }
        }
    }

    /// When the sleep ends that it is in, or that starts now and ends at `end`.
    pub(super) fn wakes_at(&self, end: impl FnOnce() -> u64) -> u64 {
        match self.wait {
            Some(Wait::Until(time)) => time,
            _ => end(),
        }
    }

    /// Answers the call that its registers make. `None`: it goes on.
    fn answer(&mut self) -> Option<Turn> {
        let ExceptionFrame { rax, rdi, rsi, rdx, .. } = self.registers.0;
        let outcome = calls::handle(self, rax, [rdi, rsi, rdx]);
        (self.wait, self.is_patient) = (None, false);
        let answer = match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Yield => {
                self.registers.0.rax = abi::encode(Ok(0));
                return Some(Turn::Paused);
            }
            Outcome::Wait(wait) => {
                self.wait = Some(wait);
                return Some(Turn::Waits);
            }
            Outcome::Exit(code) => return Some(Turn::Ended(End::Exited(code))),
        };
        self.registers.0.rax = abi::encode(answer);
        None
    }

    /// Runs it in ring 3 until something arrives.
    fn run(&mut self, is_time_up: impl Fn() -> bool) -> Arrival {
        setup::start();
        self.memory.activate();
        // An alarm that came after the last look would not come again, and the process would run for ever.
        let interrupts = flags::disable_interrupts();
        let may_run = !is_time_up();
        if may_run {
            self.registers.enter();
        }
        flags::restore_interrupts(interrupts);
        if !may_run {
            return Arrival::Interrupt;
        }
        let memory = &self.memory;
        doors::arrival(&mut self.registers.0, setup::lstar(), |gva| memory.code(Gva(gva)))
    }

    /// Whether it faulted at a page of its stack that it had not touched before, and has now.
    fn has_touched_its_stack(&mut self) -> bool {
        const PRESENT: u64 = 1 << 0;
        match self.registers.0.fault_address() {
            Some(gva) if self.registers.0.error_code & PRESENT == 0 => self.memory.touch_stack(gva),
            _ => false,
        }
    }
}
