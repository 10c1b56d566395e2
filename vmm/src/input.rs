//! `Input`: what is typed at the guest's console.

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::fd::AsFd;

use crate::error::{Error, Result};
use crate::next::StopReason;
use crate::readiness::is_ready;

/// What is typed at the guest's console.
pub struct Input(Source);

enum Source {
    /// A terminal, a pipe, a file.
    File(File),
    /// All of it, in memory.
    Bytes(Cursor<Vec<u8>>),
}

/// What reading gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// So many bytes; 0 at the end of the input.
    Bytes(usize),
    /// None yet.
    NothingYet,
    /// The machine is to stop.
    Stopped(StopReason),
}

/// How often a waiting read looks whether the machine is to stop: promptly for a person.
const LOOK_EVERY_MS: libc::c_int = 20;

impl Input {
    /// The process's own stdin.
    ///
    /// # Errors
    /// When stdin is closed.
    pub fn stdin() -> io::Result<Self> {
        Ok(Self(Source::File(File::from(io::stdin().as_fd().try_clone_to_owned()?))))
    }

    /// These bytes and then the end.
    #[must_use]
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Source::Bytes(Cursor::new(bytes.into())))
    }

    /// Reads into `buffer`, waiting for input if told to, for as long as `stopped` has no reason to end the run.
    ///
    /// # Errors
    /// [`Error::Console`].
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        wait: bool,
        stopped: impl Fn() -> Option<StopReason>,
    ) -> Result<Typed> {
        let file = match &mut self.0 {
            Source::Bytes(bytes) => return bytes.read(buffer).map(Typed::Bytes).map_err(Error::Console),
            Source::File(file) => file,
        };
        if buffer.is_empty() {
            return Ok(Typed::Bytes(0));
        }
        let patience_ms = if wait { LOOK_EVERY_MS } else { 0 };
        while !is_ready(file, libc::POLLIN, patience_ms).map_err(Error::Console)? {
            if let Some(reason) = stopped() {
                return Ok(Typed::Stopped(reason));
            }
            if !wait {
                return Ok(Typed::NothingYet);
            }
        }
        match file.read(buffer) {
            Ok(count) => Ok(Typed::Bytes(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Typed::NothingYet),
            Err(error) => Err(Error::Console(error)),
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::File(_) => "Input(file)",
            Source::Bytes(_) => "Input(bytes)",
        })
    }
}
