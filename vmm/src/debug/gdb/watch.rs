//! `SocketWatch`: a thread that pauses the guest when the debugger has something to say.
//!
//! While the guest runs, its thread is in KVM_RUN and cannot read. This thread waits for the socket in its place, and
//! pauses the guest when a byte has come: a Ctrl-C, most often. While the guest stands it sleeps.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::readiness::is_ready;
use crate::stop::StopHandle;

/// A thread that pauses the guest when the debugger has something to say.
#[derive(Debug)]
pub(super) struct SocketWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The guest stands.
    #[default]
    Idle,
    /// The guest runs.
    Watching,
    /// The guest was paused.
    Paused,
    /// The thread is to end.
    Over,
}

/// How long one wait for the socket takes at most: then the thread looks whether it is still wanted.
const LOOK_EVERY_MS: libc::c_int = 20;

impl SocketWatch {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the host has no thread left.
    pub(super) fn start(socket: Arc<File>, stop: StopHandle) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("gdb-watch".into())
            .spawn(move || own.watch(&socket, &stop))
            .map_err(|source| Error::Stop { action: "start the thread that watches the debugger", source })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// From now on the guest is paused when something comes.
    pub(super) fn begin(&self) {
        self.shared.become_(State::Watching);
    }

    /// From now on nothing pauses the guest. True when it was paused.
    pub(super) fn end(&self) -> bool {
        self.shared.become_(State::Idle) == State::Paused
    }

    /// Whether something has come since it began.
    pub(super) fn has_paused(&self) -> bool {
        *self.shared.state() == State::Paused
    }
}

impl Shared {
    /// A thread that panicked while it held a state left a state.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn become_(&self, next: State) -> State {
        let before = std::mem::replace(&mut *self.state(), next);
        self.changed.notify_all();
        before
    }

    fn watch(&self, socket: &File, stop: &StopHandle) {
        while self.wait_until_watching() {
            if !matches!(has_news(socket), Ok(false)) {
                let mut state = self.state();
                // Under the lock: once `end` has returned, nobody pauses any more.
                if *state == State::Watching {
                    *state = State::Paused;
                    stop.pause();
                }
            }
        }
    }

    /// False when the thread is to end.
    fn wait_until_watching(&self) -> bool {
        let idle = |state: &mut State| matches!(state, State::Idle | State::Paused);
        let state = self.changed.wait_while(self.state(), idle).unwrap_or_else(PoisonError::into_inner);
        *state == State::Watching
    }
}

/// An error is news, too: reading will tell of it.
fn has_news(socket: &File) -> io::Result<bool> {
    is_ready(socket, libc::POLLIN, LOOK_EVERY_MS)
}

impl Drop for SocketWatch {
    fn drop(&mut self) {
        self.shared.become_(State::Over);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
