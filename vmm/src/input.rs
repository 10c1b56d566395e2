//! `Input`: what is typed at the guest's console.

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read};

use crate::descriptor;
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
        Ok(Self(Source::File(descriptor::clone_of(libc::STDIN_FILENO)?)))
    }

    /// A file, or the end of a pipe.
    #[must_use]
    pub fn file(file: File) -> Self {
        Self(Source::File(file))
    }

    /// These bytes and then the end.
    #[must_use]
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Source::Bytes(Cursor::new(bytes.into())))
    }

    /// What can be waited for: another handle of the same file. What is in memory need not be.
    ///
    /// # Errors
    /// [`Error::Console`].
    pub(crate) fn awaited(&self) -> Result<Option<File>> {
        match &self.0 {
            Source::File(file) => file.try_clone().map(Some).map_err(Error::Console),
            Source::Bytes(_) => Ok(None),
        }
    }

    /// Reads into `buffer`, waiting for input if told to, for as long as `cut_short` has no other answer.
    ///
    /// # Errors
    /// [`Error::Console`].
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        wait: bool,
        cut_short: impl Fn() -> Option<Typed>,
    ) -> Result<Typed> {
        let file = match &mut self.0 {
            Source::Bytes(bytes) => return bytes.read(buffer).map(Typed::Bytes).map_err(Error::Console),
            Source::File(file) => file,
        };
        if buffer.is_empty() {
            return Ok(Typed::Bytes(0));
        }
        while !is_ready(file, libc::POLLIN, 0).map_err(Error::Console)? {
            // Asked before waiting: a machine of many vCPUs may have many that want to read.
            if let Some(answer) = cut_short() {
                return Ok(answer);
            }
            if !wait {
                return Ok(Typed::NothingYet);
            }
            is_ready(file, libc::POLLIN, LOOK_EVERY_MS).map_err(Error::Console)?;
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
