//! `Output`: a file descriptor that a guest's text is written to, and that may not want it.
//!
//! A pipe whose reader sleeps blocks whoever writes to it. On the vCPU's thread that is fine until the machine is to
//! stop: the kick that brings a vCPU out of KVM_RUN interrupts its write just the same, and then the rest is written
//! only as far as somebody takes it. Other threads get no kick; they ask before they write.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;

use vm_memory::VolatileSlice;

use crate::readiness::is_ready;
use crate::stop::StopHandle;

/// A file descriptor for a guest's text.
#[derive(Debug)]
pub(crate) struct Output {
    file: File,
    stop: StopHandle,
    /// Whether it was given up on: then the next text is not waited with, of which many vCPUs may have some.
    is_given_up: bool,
}

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// The thread of the vCPU, which a request to stop interrupts.
    Vcpu,
    /// Any other thread.
    Helper,
}

/// What is written at most after the machine was asked to stop: the last words, not a flood.
const LAST_WORDS: usize = 1 << 20;
/// How long a reader is waited for before the request to stop is looked at again.
const PATIENCE_MS: libc::c_int = 20;

impl Output {
    /// Writes to `file`, and gives up when it takes nothing while `stop` asks for the end.
    pub(crate) fn new(file: File, stop: StopHandle) -> Self {
        Self { file, stop, is_given_up: false }
    }

    /// Gives up on behalf of this machine from now on.
    pub(crate) fn belong_to(&mut self, stop: &StopHandle) {
        self.stop = stop.clone();
    }

    /// Writes `bytes`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_parts(bytes.len(), Writer::Vcpu, |file, start, size| {
            file.write(bytes.get(start..start + size).unwrap_or_default())
        })
    }

    /// Writes guest memory, which the kernel reads itself: no copy.
    pub(crate) fn write_guest(&mut self, bytes: &VolatileSlice<'_>, writer: Writer) -> io::Result<()> {
        let guard = bytes.ptr_guard();
        self.write_parts(bytes.len(), writer, |file, start, size| {
            // SAFETY: `start + size` is at most the slice's length, so the range is guest RAM, which is mapped for as
            // long as the slice lives. The kernel only reads it, and does not mind that a guest changes it meanwhile.
            let written = unsafe { libc::write(file.as_raw_fd(), guard.as_ptr().add(start).cast(), size) };
            usize::try_from(written).map_err(|_| io::Error::last_os_error())
        })
    }

    /// Calls `write` with a start and a size until `size` bytes are written, or nobody takes them and it is time to stop.
    fn write_parts(
        &mut self,
        size: usize,
        writer: Writer,
        mut write: impl FnMut(&mut File, usize, usize) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < size {
            let stopping = self.stop.requested().is_some();
            if stopping && done >= LAST_WORDS {
                return Ok(());
            }
            let mut part = size - done;
            if stopping || writer == Writer::Helper {
                if !self.is_writable()? {
                    if stopping {
                        self.is_given_up = true;
                        return Ok(());
                    }
                    continue;
                }
                // A pipe that can be written takes this many bytes without waiting (pipe(7)).
                part = part.min(libc::PIPE_BUF);
            }
            match write(&mut self.file, done, part) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(self.is_writable()?),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether a small write would not wait; asks for a moment.
    fn is_writable(&self) -> io::Result<bool> {
        is_ready(&self.file, libc::POLLOUT, if self.is_given_up { 0 } else { PATIENCE_MS })
    }
}

impl Write for Output {
    /// Writes all, or as much as is taken when it is time to stop; what nobody takes then is no failure.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Output::write(self, bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
