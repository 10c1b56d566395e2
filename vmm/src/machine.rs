//! `Machine`: what all vCPUs of a VM share.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::console::Console;
use crate::devices::bus::PioBus;
use crate::devices::{DebugConsole, ExitPort};
use crate::memory::GuestMemory;
use crate::stop::StopHandle;

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
    console: Arc<Mutex<Console>>,
}

impl Machine {
    /// A machine with `memory` and the devices that every machine has.
    #[must_use]
    pub fn new(memory: GuestMemory, console: Console, time_limit: Option<Duration>) -> Self {
        let console = Arc::new(Mutex::new(console));
        let mut pio = PioBus::default();
        pio.attach(
            shared_abi::ports::DEBUG_CONSOLE,
            Box::new(DebugConsole::new(Arc::clone(&console))),
        );
        pio.attach(shared_abi::ports::EXIT, Box::new(ExitPort));
        Self {
            memory,
            pio,
            stop: StopHandle::default(),
            time_limit,
            console,
        }
    }

    /// Writes out what the console still holds.
    ///
    /// # Errors
    /// As the sink's.
    pub fn flush_console(&self) -> std::io::Result<()> {
        self.console
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .flush()
    }
}
