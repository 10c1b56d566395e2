//! The debug console at port 0xE9. Guest side: `guest-kernel/src/console.rs`.

use std::sync::{Arc, Mutex, PoisonError};

use shared_abi::ports::DEBUG_CONSOLE_PRESENT;

use crate::console::Console;
use crate::devices::bus::PioDevice;
use crate::error::Result;
use crate::next::Next;

/// OUT prints all bytes of the access; IN answers 0xE9 in every byte, so that a guest can find the console.
#[derive(Debug)]
pub struct DebugConsole {
    console: Arc<Mutex<Console>>,
}

impl DebugConsole {
    /// A port in front of `console`.
    #[must_use]
    pub fn new(console: Arc<Mutex<Console>>) -> Self {
        Self { console }
    }
}

impl PioDevice for DebugConsole {
    fn name(&self) -> &'static str {
        "console"
    }

    fn read(&mut self, data: &mut [u8]) -> Result<Next> {
        data.fill(DEBUG_CONSOLE_PRESENT);
        Ok(Next::Resume)
    }

    fn write(&mut self, data: &[u8]) -> Result<Next> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner).write(data)
    }
}
