//! The engine: changes inputs, runs the target on them, keeps those that reach something new.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use crate::edges::{self, Seen};
use crate::mutate::{Random, changed};
use crate::shrink;
use crate::targets::Target;

/// How a hunt goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// How often the target ran.
    pub executions: u64,
    /// How many edges were reached.
    pub edges: usize,
    /// Inputs that reach something that none before them does.
    pub pool: usize,
    /// The longest run.
    pub slowest: Duration,
}

/// An input that makes the target panic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The input.
    pub input: Vec<u8>,
    /// What the panic said, and where.
    pub message: String,
}

/// Somebody who is told of inputs.
type Listener<'a> = Box<dyn FnMut(&[u8]) + 'a>;

/// A hunt for an input that makes a target panic.
pub struct Engine<'a> {
    target: &'a Target,
    random: Random,
    seen: Seen,
    pool: Vec<Vec<u8>>,
    progress: Progress,
    /// Told of every input before it runs.
    before: Listener<'a>,
}

impl<'a> Engine<'a> {
    /// A hunt that has not begun; the same seed makes the same choices. `before` is told of every input before it runs.
    pub fn new(target: &'a Target, seed: u64, before: impl FnMut(&[u8]) + 'a) -> Self {
        Self {
            target,
            random: Random(seed),
            seen: Seen::default(),
            pool: Vec::new(),
            progress: Progress::default(),
            before: Box::new(before),
        }
    }

    /// Runs the target on an input, and keeps it when it reaches something new.
    ///
    /// # Errors
    /// The failure, when the target panics.
    pub fn try_input(&mut self, input: &[u8]) -> Result<(), Failure> {
        (self.before)(input);
        edges::reset();
        let start = Instant::now();
        run_once(self.target, input)?;
        self.progress.slowest = self.progress.slowest.max(start.elapsed());
        self.progress.executions += 1;
        if self.seen.add() || self.pool.is_empty() {
            self.pool.push(input.to_vec());
        }
        Ok(())
    }

    /// Tries changed inputs until `is_over` says so, asked from time to time.
    ///
    /// # Errors
    /// The first failure, made smaller.
    pub fn hunt(&mut self, mut is_over: impl FnMut(&Progress) -> bool) -> Result<(), Failure> {
        while !is_over(&self.progress()) {
            for _ in 0..64 {
                let input = self.next_input();
                self.try_input(&input).map_err(|failure| self.smaller(&failure))?;
            }
        }
        Ok(())
    }

    /// An input of the pool, with changes. Later ones reach deeper, and are taken more often.
    fn next_input(&mut self) -> Vec<u8> {
        let count = self.pool.len();
        let Some(last) = count.checked_sub(1) else { return Vec::new() };
        let either = [self.random.below(count), self.random.below(count)];
        let index =
            if self.random.below(3) == 0 { last - self.random.below(count.min(8)) } else { either[0] };
        changed(&mut self.random, &self.pool[index], &self.pool[either[1]], self.target.max_size)
    }

    /// The same panic by a smaller input.
    #[must_use]
    pub fn smaller(&mut self, failure: &Failure) -> Failure {
        let place = |message: &str| message.lines().next().unwrap_or_default().to_owned();
        let is_same = |input: &[u8]| {
            (self.before)(input);
            run_once(self.target, input).is_err_and(|other| place(&other.message) == place(&failure.message))
        };
        let input = shrink::smaller(&failure.input, is_same);
        Failure { input, message: failure.message.clone() }
    }

    /// How it goes.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress { edges: self.seen.count(), pool: self.pool.len(), ..self.progress }
    }

    /// The inputs that reach something new, in the order in which they were found.
    #[must_use]
    pub fn pool(&self) -> &[Vec<u8>] {
        &self.pool
    }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs the target once.
///
/// # Errors
/// The failure, when it panics.
pub fn run_once(target: &Target, input: &[u8]) -> Result<(), Failure> {
    let result = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    result.map_err(|payload| {
        let said = payload.downcast_ref::<String>().cloned();
        let said = said.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
        let message = PANIC.take().or(said).unwrap_or_else(|| "a panic without a message".to_owned());
        Failure { input: input.to_vec(), message }
    })
}

/// Keeps what panics say for [`run_once`], instead of printing it. The place comes first: it is the same for every input.
pub fn keep_panics_silent() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let said = info.payload_as_str().unwrap_or("a panic without a message");
        PANIC.set(Some(format!("panicked at {place}\n{said}")));
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets;

    /// So many runs find the planted bug many times over, if they are led to it.
    const ENOUGH: u64 = 200_000;

    #[test]
    fn the_planted_bug_is_found_and_made_as_small_as_can_be() {
        let target = targets::find("self-test").expect("it is hidden, not missing");
        let mut engine = Engine::new(target, 1, |_| {});
        engine.try_input(b"a seed that has nothing to do with it").expect("it is harmless");
        let failure = engine.hunt(|progress| progress.executions > ENOUGH).expect_err("there is a bug");
        assert!(failure.message.contains("planted"), "{failure:?}");
        assert_eq!(failure.input, targets::self_test::TRIGGER);
    }

    #[test]
    fn without_knowing_what_inputs_reach_it_is_not_found() {
        let blind = |input: &[u8]| assert!(!targets::self_test::is_trigger(input), "found blindly");
        let target = Target::new("blind", "", blind, || vec![b"seed".to_vec()]);
        let mut engine = Engine::new(&target, 1, |_| {});
        engine.try_input(b"a seed that has nothing to do with it").expect("it is harmless");
        engine.hunt(|progress| progress.executions > ENOUGH).expect("nothing leads there");
    }
}
