//! `Console`: where a guest's console output goes, and when.
//!
//! A guest may print byte by byte, an exit each. Writing each byte to the host's stdout at once would add a system
//! call to every exit; keeping bytes back would hide what a dying guest said last. So output is written when a line
//! is complete, when much has gathered, and when the guest stops, for whatever reason. On a terminal it is written
//! at once, because a person is watching.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use vm_memory::{Bytes, VolatileMemoryError, VolatileSlice};

use crate::descriptor;
use crate::error::{Error, Result};
use crate::next::{Next, StopReason};
use crate::output::{Output, Writer};
use crate::stop::StopHandle;

/// The sink of a guest's console output.
pub struct Console {
    sink: Sink,
    waiting: Vec<u8>,
    pace: Pace,
    /// The first failure that nobody could be told of: rings and coalesced writes have no call to answer.
    failure: Option<io::Error>,
    printed: Printed,
}

/// How many bytes a guest has printed so far, for those who watch.
#[derive(Clone, Debug, Default)]
pub struct Printed(Arc<AtomicU64>);

impl Printed {
    /// The number.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

enum Sink {
    /// A file descriptor: the kernel can read guest memory itself.
    File(Output),
    /// Any writer. One that blocks, blocks the machine, past its time limit too.
    Writer(Box<dyn Write + Send>),
}

/// When output is handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// As it comes.
    AtOnce,
    /// Line by line.
    ByLine,
}

/// Bytes that may wait for the end of their line.
pub(crate) const MAX_WAITING: usize = 4096;

impl Console {
    /// The process's own stdout.
    ///
    /// # Errors
    /// When stdout is closed.
    pub fn stdout() -> io::Result<Self> {
        // Straight to the file descriptor: `Stdout` would search every buffer for newlines once more.
        let file = descriptor::clone_of(libc::STDOUT_FILENO)?;
        let pace = if file.is_terminal() { Pace::AtOnce } else { Pace::ByLine };
        Ok(Self { pace, ..Self::to_file(file) })
    }

    /// A file or pipe, line by line.
    #[must_use]
    pub fn to_file(file: File) -> Self {
        Self::with(Sink::File(Output::new(file, StopHandle::default())))
    }

    /// Any writer, line by line.
    #[must_use]
    pub fn to(sink: impl Write + Send + 'static) -> Self {
        Self::with(Sink::Writer(Box::new(sink)))
    }

    fn with(sink: Sink) -> Self {
        Self { sink, waiting: Vec::new(), pace: Pace::ByLine, failure: None, printed: Printed::default() }
    }

    /// Counts what the guest prints.
    #[must_use]
    pub fn printed(&self) -> Printed {
        self.printed.clone()
    }

    /// The process's own stderr, line by line: for commands that have something of their own to say on stdout.
    ///
    /// # Errors
    /// When stderr is closed.
    pub fn stderr() -> io::Result<Self> {
        Ok(Self::to_file(descriptor::clone_of(libc::STDERR_FILENO)?))
    }

    /// Gives up on a sink that takes nothing when this machine is to stop.
    pub(crate) fn belong_to(&mut self, stop: &StopHandle) {
        if let Sink::File(output) = &mut self.sink {
            output.belong_to(stop);
        }
    }

    /// Keeps a failure for [`take_failure`](Self::take_failure).
    pub(crate) fn remember(&mut self, failure: io::Error) {
        self.failure.get_or_insert(failure);
    }

    /// The first failure that was kept.
    pub(crate) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Nowhere.
    #[must_use]
    pub fn discard() -> Self {
        Self::to(io::sink())
    }

    /// Memory, [`MAX_CAPTURED`] bytes of it, to be read by the second value while and after the guest runs.
    #[must_use]
    pub fn capture() -> (Self, Captured) {
        let captured = Captured::default();
        (Self { pace: Pace::AtOnce, ..Self::to(captured.clone()) }, captured)
    }

    /// Takes what the guest printed.
    ///
    /// # Errors
    /// [`Error::Console`]. That nobody reads any more is no error but the end of the run.
    pub fn write(&mut self, bytes: &[u8]) -> Result<Next> {
        self.printed.add(bytes.len());
        next(match self.pace {
            Pace::AtOnce => self.sink.write(bytes),
            Pace::ByLine => self.write_by_line(bytes),
        })
    }

    /// Takes what lies in guest memory, without a copy where the sink is a file.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub(crate) fn write_guest(&mut self, bytes: &VolatileSlice<'_>, writer: Writer) -> Result<Next> {
        self.printed.add(bytes.len());
        next(self.flush().and_then(|()| self.sink.write_guest(bytes, writer)))
    }

    fn write_by_line(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= MAX_WAITING || bytes.contains(&b'\n') {
            return self.flush();
        }
        Ok(())
    }

    /// What waits for the end of its line.
    pub(crate) fn waiting(&self) -> &[u8] {
        &self.waiting
    }

    /// Lets other text wait in its place.
    pub(crate) fn set_waiting(&mut self, text: &[u8]) {
        self.waiting.clear();
        self.waiting.extend_from_slice(text);
    }

    /// Hands on what still waits for the end of its line.
    ///
    /// # Errors
    /// As the sink's; what waited is dropped then.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let result = self.sink.write(&self.waiting);
        self.waiting.clear();
        result
    }
}

/// Most output goes on; a closed pipe ends the run.
fn next(result: io::Result<()>) -> Result<Next> {
    match result {
        Ok(()) => Ok(Next::Resume),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Next::Stop(StopReason::ConsoleClosed)),
        Err(error) => Err(Error::Console(error)),
    }
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(output) => output.write(bytes),
            Self::Writer(writer) => writer.write_all(bytes).and_then(|()| writer.flush()),
        }
    }

    fn write_guest(&mut self, bytes: &VolatileSlice<'_>, by: Writer) -> io::Result<()> {
        match self {
            Self::File(output) => output.write_guest(bytes, by),
            Self::Writer(writer) => {
                let mut offset = 0;
                let mut copy = vec![0; bytes.len().min(COPY_SIZE)];
                while offset < bytes.len() {
                    let count = bytes.read(&mut copy, offset).map_err(io_error)?;
                    writer.write_all(copy.get(..count).unwrap_or_default())?;
                    offset += count;
                }
                writer.flush()
            }
        }
    }
}

/// Guest memory is copied in parts of this size when the sink is no file.
const COPY_SIZE: usize = 64 << 10;

/// The errno inside; anything else would be a slice that is shorter than its length.
fn io_error(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other.to_string()),
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("waiting", &self.waiting.len()).field("pace", &self.pace).finish()
    }
}

/// The most that is kept in memory; what a guest prints beyond it is dropped.
pub const MAX_CAPTURED: usize = 16 << 20;

/// Console output in memory: the first [`MAX_CAPTURED`] bytes.
#[derive(Clone, Debug, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// What the guest has printed so far.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether as much was printed as is kept; more was dropped.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len() >= MAX_CAPTURED
    }

    /// The same as text; what is not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_CAPTURED.saturating_sub(kept.len()).min(bytes.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or_default());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_line() -> (Console, Captured) {
        let captured = Captured::default();
        (Console::to(captured.clone()), captured)
    }

    #[test]
    fn a_line_is_handed_on_when_it_is_complete() {
        let (mut console, captured) = by_line();
        console.write(b"hel").expect("memory");
        assert_eq!(captured.text(), "");
        console.write(b"lo\nwor").expect("memory");
        assert_eq!(captured.text(), "hello\nwor");
        console.flush().expect("memory");
        assert_eq!(captured.text(), "hello\nwor");
    }

    #[test]
    fn a_long_line_does_not_wait_for_its_end() {
        let (mut console, captured) = by_line();
        console.write(&[b'x'; MAX_WAITING]).expect("memory");
        assert_eq!(captured.bytes().len(), MAX_WAITING);
    }

    #[test]
    fn a_closed_pipe_ends_the_run_and_is_no_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let next = Console::to(Closed).write(b"x\n").expect("no error");
        assert_eq!(next, Next::Stop(StopReason::ConsoleClosed));
    }
}
