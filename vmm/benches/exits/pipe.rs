//! A pipe that somebody empties: where text goes to be measured.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::thread::{self, JoinHandle};

use crate::Outcome;

/// Reads the other end, until all writers are gone.
pub(crate) struct Drain(JoinHandle<io::Result<u64>>);

impl Drain {
    /// Starts to read.
    pub(crate) fn start() -> Outcome<(Self, PipeWriter)> {
        let (reader, writer) = io::pipe()?;
        Ok((Self(thread::spawn(move || empty(reader))), writer))
    }

    /// Waits for the end; fails unless so many bytes came.
    pub(crate) fn expect(self, bytes: u64) -> Outcome<()> {
        let total = self.0.join().map_err(|_| "the reader panicked")??;
        if total == bytes { Ok(()) } else { Err(format!("{total} of {bytes} bytes arrived").into()) }
    }
}

/// Reads to the end and counts.
fn empty(mut reader: PipeReader) -> io::Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += count as u64,
        }
    }
}
