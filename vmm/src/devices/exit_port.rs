//! The exit port. Guest side: `guest-kernel/src/power.rs`.

use crate::devices::bus::PioDevice;
use crate::error::Result;
use crate::exit::little_endian;
use crate::next::{Next, StopReason};

/// OUT ends the run with the value as exit code; IN answers zero.
#[derive(Debug)]
pub struct ExitPort;

impl PioDevice for ExitPort {
    fn name(&self) -> &'static str {
        "exit"
    }

    fn read(&mut self, data: &mut [u8]) -> Result<Next> {
        data.fill(0);
        Ok(Next::Resume)
    }

    fn write(&mut self, data: &[u8]) -> Result<Next> {
        Ok(Next::Stop(StopReason::Exited { code: little_endian(data) as u32 }))
    }
}
