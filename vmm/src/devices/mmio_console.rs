//! The console as a device in memory. Guest side: `guest-kernel/src/channel.rs`.

use std::sync::{Arc, Mutex, PoisonError};

use crate::console::Console;
use crate::devices::bus::MmioDevice;
use crate::error::Result;
use crate::next::Next;

/// Writes print all their bytes; reads give zeros.
#[derive(Debug)]
pub struct MmioConsole {
    console: Arc<Mutex<Console>>,
}

impl MmioConsole {
    /// An address in front of `console`.
    #[must_use]
    pub fn new(console: Arc<Mutex<Console>>) -> Self {
        Self { console }
    }
}

impl MmioDevice for MmioConsole {
    fn name(&self) -> &'static str {
        "console"
    }

    fn read(&mut self, _offset: u64, data: &mut [u8]) -> Result<Next> {
        data.fill(0);
        Ok(Next::Resume)
    }

    fn write(&mut self, _offset: u64, data: &[u8]) -> Result<Next> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner).write(data)
    }
}
