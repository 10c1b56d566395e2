//! `Machine`: what all vCPUs of a VM share.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::console::Console;
use crate::devices::bus::PioBus;
use crate::devices::{DebugConsole, ExitPort};
use crate::error::{Error, Result};
use crate::hypercall::Files;
use crate::input::Input;
use crate::log::{Log, LogRecord};
use crate::memory::GuestMemory;
use crate::next::StopReason;
use crate::stop::{StopHandle, StopRequest};

/// What all vCPUs of a VM share.
#[derive(Debug)]
pub struct Machine {
    /// RAM.
    pub memory: GuestMemory,
    /// The I/O ports.
    pub pio: PioBus,
    /// Stops all of it.
    pub stop: StopHandle,
    /// How long it may run.
    pub time_limit: Option<Duration>,
    /// Whether the guest speaks our contract and so may make hypercalls.
    pub has_hypercalls: bool,
    arguments: Vec<u8>,
    console: Arc<Mutex<Console>>,
    input: Mutex<Input>,
    log: Log,
    files: Mutex<Files>,
}

/// What a machine is made of, beside the devices that every machine has.
#[derive(Debug)]
pub struct Parts {
    /// RAM.
    pub memory: GuestMemory,
    /// How long it may run.
    pub time_limit: Option<Duration>,
    /// Whether the guest may make hypercalls.
    pub has_hypercalls: bool,
    /// The guest's arguments as they lie in memory.
    pub arguments: Vec<u8>,
    /// Where console output goes.
    pub console: Console,
    /// Where console input comes from.
    pub input: Input,
    /// Where log records go.
    pub log: Log,
    /// The guest's files.
    pub files: Files,
}

impl Machine {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let stop = StopHandle::default();
        let console = Arc::new(Mutex::new(parts.console));
        let mut pio = PioBus::default();
        pio.attach(shared_abi::ports::DEBUG_CONSOLE, Box::new(DebugConsole::new(Arc::clone(&console))));
        pio.attach(shared_abi::ports::EXIT, Box::new(ExitPort));
        Self {
            memory: parts.memory,
            pio,
            stop,
            time_limit: parts.time_limit,
            has_hypercalls: parts.has_hypercalls,
            arguments: parts.arguments,
            console,
            input: Mutex::new(parts.input),
            log: parts.log,
            files: Mutex::new(parts.files),
        }
    }

    /// The reason to stop that somebody outside has given, if any.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop.requested().map(|request| match request {
            StopRequest::Interrupt => StopReason::Interrupted,
            StopRequest::TimeLimit => StopReason::TimedOut { limit: self.time_limit.unwrap_or_default() },
        })
    }

    /// Writes out what the console still holds. That nobody reads any more is no error.
    ///
    /// # Errors
    /// [`Error::Console`].
    pub fn flush_console(&self) -> Result<()> {
        match self.console().flush() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Console(error)),
            _ => Ok(()),
        }
    }

    /// The guest's arguments, each with a NUL behind it.
    #[must_use]
    pub fn arguments(&self) -> &[u8] {
        &self.arguments
    }

    /// Adds a record to the host's log.
    pub fn log(&self, record: &LogRecord) {
        self.log.add(record);
    }

    pub(crate) fn console(&self) -> MutexGuard<'_, Console> {
        locked(&self.console)
    }

    pub(crate) fn input(&self) -> MutexGuard<'_, Input> {
        locked(&self.input)
    }

    pub(crate) fn files(&self) -> MutexGuard<'_, Files> {
        locked(&self.files)
    }
}

/// A device whose last user panicked is still a device: what it holds is bytes and numbers.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
