//! `Pool`: machines from one snapshot, ready before somebody wants them.
//!
//! A thread makes them; whoever takes one waits only when none is ready. A taken one is put among the taker's people and
//! files, and is gone from the pool for good: to give a used machine to the next user would be to trust its guest.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::{Snapshot, Surroundings};
use crate::error::{Error, Result};
use crate::vm::Vm;

/// Machines that are ready. Any number of threads may take from it.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    maker: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    snapshot: Snapshot,
    size: usize,
    state: Mutex<State>,
    /// There is one less, or one more, or the end.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    ready: Vec<Vm>,
    /// Why the last machine could not be made: told to the next who wants one, and then it is tried again.
    failure: Option<Error>,
    is_over: bool,
}

/// The most machines that a pool keeps: each takes a descriptor or two and memory of the host's kernel.
const MOST: usize = 4096;

impl Pool {
    /// Keeps `size` machines ready that go on from `snapshot`; at least one and at most 4096. They are made from now on.
    ///
    /// # Errors
    /// [`Error::Stop`] when there is no thread for it.
    pub fn new(snapshot: Snapshot, size: usize) -> Result<Self> {
        let (size, state) = (size.clamp(1, MOST), Mutex::default());
        let shared = Arc::new(Shared { snapshot, size, state, changed: Condvar::new() });
        let own = Arc::clone(&shared);
        let maker = thread::Builder::new().name("pool".into()).spawn(move || own.make());
        let failed =
            |source: io::Error| Error::Stop { action: "start the thread that makes machines", source };
        Ok(Self { shared, maker: Some(maker.map_err(failed)?) })
    }

    /// Takes a machine, and waits when none is ready.
    ///
    /// # Errors
    /// What the host could not do: for the last machine that was to be made, or for these surroundings.
    pub fn take(&self, surroundings: Surroundings) -> Result<Vm> {
        let mut vm = self.shared.take()?;
        vm.surround(surroundings)?;
        Ok(vm)
    }

    /// How many are ready now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.shared.lock().ready.len()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        if let Some(maker) = self.maker.take() {
            let _ = maker.join();
        }
    }
}

impl Shared {
    fn take(&self) -> Result<Vm> {
        let mut state = self.lock();
        loop {
            if let Some(vm) = state.ready.pop() {
                self.changed.notify_all();
                return Ok(vm);
            }
            if let Some(failure) = state.failure.take() {
                self.changed.notify_all();
                return Err(failure);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes machines until the end.
    fn make(&self) {
        let mut state = self.lock();
        while !state.is_over {
            if state.ready.len() >= self.size || state.failure.is_some() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            let made = self.snapshot.spawn(Surroundings::default());
            state = self.lock();
            match made {
                Ok(vm) => state.ready.push(vm),
                Err(failure) => state.failure = Some(failure),
            }
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
