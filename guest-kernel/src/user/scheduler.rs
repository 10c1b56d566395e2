//! The scheduler: every process has its turn, one after the other.
//!
//! Round robin: a queue, of which the first runs until it gives way, waits, or its time is up, and is then the last.
//! A process that waits makes its call again at its turn; when all of them wait, the CPU does until the first has what it
//! waits for. When nobody could give that any more, they are stuck, and that is how they end.
//!
//! A console that nobody has typed at is waited for only when all others wait for longer: the host lets the whole machine
//! wait then.
//!
//! Processes run on the CPU that calls [`Scheduler::run`], and on no other.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use super::end::{End, Wait};
use super::process::Process;
use super::turn::Turn;
use crate::time::timer::{self, AlarmId};
use crate::time::{self, Instant, clock};

/// How long a process runs while others could.
pub const TIME_SLICE: Duration = Duration::from_millis(20);

/// How many slices have passed.
static SLICES: AtomicU64 = AtomicU64::new(0);

/// Processes, in the order of their turns.
#[derive(Debug, Default)]
pub struct Scheduler {
    queue: VecDeque<Process>,
    last_id: u64,
}

/// A process that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its number.
    pub id: u64,
    /// What it was called.
    pub name: &'static str,
    /// How it ended.
    pub end: End,
}

impl core::fmt::Display for Ended {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "process {} ({}) {}", self.id, self.name, self.end)
    }
}

impl Scheduler {
    /// No process.
    #[must_use]
    pub const fn new() -> Self {
        Self { queue: VecDeque::new(), last_id: 0 }
    }

    /// Has a process take part, behind the others. Gives its number, which no other has had here.
    pub fn start(&mut self, mut process: Process) -> u64 {
        self.last_id += 1;
        process.set_id(self.last_id);
        self.queue.push_back(process);
        self.last_id
    }

    /// Runs all processes to their ends, and gives these in their order.
    pub fn run(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        self.run_with(|end| ended.push(end));
        ended
    }

    /// Runs all processes to their ends, and tells of each when it has come.
    ///
    /// While there is more than one, the timer takes care that each has its turn. A machine without interrupt controllers
    /// has no timer; there each runs until it gives way or waits.
    ///
    /// # Panics
    /// On another CPU than the first: the others have no stack for who comes from ring 3.
    pub fn run_with(&mut self, mut tell: impl FnMut(Ended)) {
        assert_eq!(crate::cpu::id(), crate::cpu::CpuId::FIRST, "processes run on the first CPU only");
        let mut alarm = Alarm::None;
        // How many turns in a row have moved nothing.
        let mut idle_turns = 0;
        while let Some(mut process) = self.queue.pop_front() {
            // Before the alarm is set: it may come before the process has run at all.
            let slice = SLICES.load(Ordering::Relaxed);
            if !self.queue.is_empty() || process.has_time_limit() {
                alarm.set();
            }
            let end = match process.turn(|| SLICES.load(Ordering::Relaxed) != slice) {
                Turn::Ended(end) => Some(end),
                Turn::TimeUp if !process.use_slice() => Some(End::OutOfTime),
                Turn::StillWaits => {
                    idle_turns += 1;
                    None
                }
                Turn::Paused | Turn::TimeUp | Turn::Waits => {
                    idle_turns = 0;
                    None
                }
            };
            match end {
                Some(end) => {
                    idle_turns = 0;
                    tell(over(process, end));
                }
                None => self.queue.push_back(process),
            }
            if idle_turns > 0 && idle_turns >= self.queue.len() {
                self.wait().into_iter().for_each(&mut tell);
                idle_turns = 0;
            }
        }
        alarm.cancel();
    }

    /// Waits for what can come from outside: time, or typing. When none of the processes waits for that, they have ended.
    fn wait(&mut self) -> Vec<Ended> {
        let waits = || self.queue.iter().filter_map(Process::wait);
        let first =
            waits().filter_map(|wait| if let Wait::Until(time) = wait { Some(time) } else { None }).min();
        if let Some(time) = first {
            sleep_until(time);
        } else if let Some(process) =
            self.queue.iter_mut().find(|process| process.wait() == Some(Wait::Typing))
        {
            process.be_patient();
        } else {
            return self.queue.drain(..).filter_map(stuck).collect();
        }
        Vec::new()
    }
}

/// The alarm that ends a slice.
///
/// It is set for a turn unless one is set already, and comes once. A timer that repeats would come again while the kernel
/// still serves the last one, where a KVM interprets the kernel; then no process would get on.
enum Alarm {
    None,
    /// Set when so many slices had passed.
    Set {
        slices: u64,
        id: AlarmId,
    },
}

impl Alarm {
    fn set(&mut self) {
        let slices = SLICES.load(Ordering::Relaxed);
        let is_set = matches!(self, Self::Set { slices: before, .. } if *before == slices);
        if is_set || crate::boot_info().interrupts == 0 {
            return;
        }
        let end = timer::at(Instant::now() + TIME_SLICE, |_| _ = SLICES.fetch_add(1, Ordering::Relaxed));
        // Without room for an alarm a process keeps the CPU until it gives way.
        *self = end.map_or(Self::None, |id| Self::Set { slices, id });
    }

    fn cancel(self) {
        if let Self::Set { id, .. } = self {
            timer::cancel(id);
        }
    }
}

/// Frees what a process had, before anybody hears of its end.
fn over(process: Process, end: End) -> Ended {
    Ended { id: process.id(), name: process.name(), end }
}

/// The end of a process whose wait has none.
fn stuck(process: Process) -> Option<Ended> {
    let wait = process.wait()?;
    Some(over(process, End::Stuck(wait)))
}

/// Waits for a time, by the [clock].
fn sleep_until(time: u64) {
    time::sleep_until(Instant::now() + Duration::from_nanos(time.saturating_sub(clock::now_ns())));
}
