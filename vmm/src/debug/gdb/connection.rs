//! `Channel`: the bytes to and from a debugger. What comes is a stranger's word.
//!
//! No debugger holds the machine up: reading and writing wait in small pieces, and end when the machine is asked to
//! stop.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use gdbstub::conn::Connection;

use crate::readiness::is_ready;
use crate::stop::StopHandle;

/// The bytes to and from a debugger.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Arc<File>,
    stop: StopHandle,
    /// Bytes that have come and were not looked at.
    came: VecDeque<u8>,
    /// Bytes of the packet that is being written.
    written: Vec<u8>,
}

/// What waiting for a byte gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// A byte.
    Byte(u8),
    /// None yet.
    Nothing,
    /// The debugger has closed the connection.
    End,
}

/// How often a wait looks whether the machine is to stop; a signal ends a wait early.
const LOOK_EVERY_MS: libc::c_int = 50;

impl Channel {
    /// A channel over a connected socket, which ends when `stop` is asked to.
    pub(super) fn new(socket: OwnedFd, stop: StopHandle) -> Self {
        Self { socket: Arc::new(File::from(socket)), stop, came: VecDeque::new(), written: Vec::new() }
    }

    /// The socket, for whoever watches it.
    pub(super) fn socket(&self) -> Arc<File> {
        Arc::clone(&self.socket)
    }

    /// A second channel to the same debugger: for writing packets of our own.
    pub(super) fn twin(&self) -> Self {
        Self { socket: self.socket(), stop: self.stop.clone(), came: VecDeque::new(), written: Vec::new() }
    }

    /// Whether bytes have come that were not looked at: the socket shows nothing of them.
    pub(super) fn has_unread(&self) -> bool {
        !self.came.is_empty()
    }

    /// The next byte; waits for it a while, if told to.
    ///
    /// # Errors
    /// The socket's.
    pub(super) fn read(&mut self, wait: bool) -> io::Result<Came> {
        if let Some(byte) = self.came.pop_front() {
            return Ok(Came::Byte(byte));
        }
        if !is_ready(&self.socket, libc::POLLIN, if wait { LOOK_EVERY_MS } else { 0 })? {
            return Ok(Came::Nothing);
        }
        let mut buffer = [0; 4096];
        let count = (&*self.socket).read(&mut buffer)?;
        self.came.extend(buffer.iter().take(count));
        Ok(self.came.pop_front().map_or(Came::End, Came::Byte))
    }

    /// Shows `text` on the debugger's console. The protocol allows it while the guest runs.
    ///
    /// # Errors
    /// As [`flush`](Connection::flush).
    pub(super) fn show(&mut self, text: &str) -> io::Result<()> {
        let body = text.bytes().fold("O".to_owned(), |body, byte| body + &format!("{byte:02x}"));
        let sum = body.bytes().fold(0, u8::wrapping_add);
        self.written.extend(format!("${body}#{sum:02x}").bytes());
        self.flush()
    }
}

impl Connection for Channel {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.written.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut rest = self.written.as_slice();
        while !rest.is_empty() {
            if is_ready(&self.socket, libc::POLLOUT, LOOK_EVERY_MS)? {
                // What poll calls writable takes this many bytes without waiting.
                let count = (&*self.socket).write(rest.get(..WRITE_SIZE).unwrap_or(rest))?;
                rest = rest.get(count..).unwrap_or_default();
            } else if self.stop.requested().is_some() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        self.written.clear();
        Ok(())
    }
}

/// Less than a socket has room for when it says that it is writable.
const WRITE_SIZE: usize = 1024;
