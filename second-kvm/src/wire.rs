//! Messages: a byte that tells the kind, the size as four bytes (little endian), the content.
//!
//! ```text
//! xtask                                  the machine's first process
//!   |  <---------------- Ready -----------  kvm_amd is loaded
//!   |  ----------------- Run ------------>  starts the program
//!   |  <------- Output, InputTaken -------
//!   |  ----- Input, InputEnd, Signal ---->
//!   |  <---------------- Ended -----------  with its exit code; another Run may follow
//!   |  ---- closes the port ------------->  switches the machine off
//! ```
//!
//! Of stdin, at most one `Input` is under way: the next one waits for `InputTaken`. So a program that does not read
//! its stdin keeps nobody from sending it a signal.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The largest content of a message: a mistake on the wire shall not ask for gigabytes.
const MAX_SIZE: u32 = 1 << 20;

/// The most bytes of stdin, stdout or stderr in one message.
pub const CHUNK_SIZE: usize = 64 << 10;

/// A program to be run in the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// The whole environment, as `NAME=VALUE`.
    pub environment: Vec<OsString>,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

/// What the host asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Run this program.
    Run(Job),
    /// Bytes for its stdin.
    Input(Vec<u8>),
    /// Its stdin ends here.
    InputEnd,
    /// Nobody reads its stdout any more.
    OutputUnread,
    /// Send it the signal of this number.
    Signal(i32),
}

/// What the machine tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The machine is up and has /dev/kvm.
    Ready,
    /// The program has written this.
    Output(Stream, Vec<u8>),
    /// The program has been given the last [`Order::Input`].
    InputTaken,
    /// The program has ended with this exit code; 128 + n if signal n killed it.
    Ended(i32),
    /// The order could not be carried out, because of this.
    Failed(String),
}

/// Where a program has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Order {
    /// Writes the order in one go.
    ///
    /// # Errors
    /// As [`Write::write_all`].
    pub fn send(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Run(job) => send(to, b'R', &job.to_bytes()),
            Self::Input(bytes) => send(to, b'I', bytes),
            Self::InputEnd => send(to, b'i', &[]),
            Self::OutputUnread => send(to, b'U', &[]),
            Self::Signal(number) => send(to, b'S', &number.to_le_bytes()),
        }
    }

    /// Reads the next order; `None` where the host has closed the port.
    ///
    /// # Errors
    /// As [`Read::read_exact`], or when what comes is no order.
    pub fn receive(from: &mut impl Read) -> io::Result<Option<Self>> {
        let Some((kind, content)) = receive(from)? else {
            return Ok(None);
        };
        Ok(Some(match kind {
            b'R' => Self::Run(Job::from_bytes(&content)),
            b'I' => Self::Input(content),
            b'i' => Self::InputEnd,
            b'U' => Self::OutputUnread,
            b'S' => Self::Signal(number(&content)?),
            _ => return Err(nonsense()),
        }))
    }
}

impl Event {
    /// Writes the event in one go.
    ///
    /// # Errors
    /// As [`Write::write_all`].
    pub fn send(&self, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Ready => send(to, b'r', &[]),
            Self::Output(Stream::Stdout, bytes) => send(to, b'o', bytes),
            Self::Output(Stream::Stderr, bytes) => send(to, b'e', bytes),
            Self::InputTaken => send(to, b't', &[]),
            Self::Ended(code) => send(to, b'x', &code.to_le_bytes()),
            Self::Failed(reason) => send(to, b'f', reason.as_bytes()),
        }
    }

    /// Reads the next event; `None` where the machine is gone.
    ///
    /// # Errors
    /// As [`Read::read_exact`], or when what comes is no event.
    pub fn receive(from: &mut impl Read) -> io::Result<Option<Self>> {
        let Some((kind, content)) = receive(from)? else {
            return Ok(None);
        };
        Ok(Some(match kind {
            b'r' => Self::Ready,
            b'o' => Self::Output(Stream::Stdout, content),
            b'e' => Self::Output(Stream::Stderr, content),
            b't' => Self::InputTaken,
            b'x' => Self::Ended(number(&content)?),
            b'f' => Self::Failed(String::from_utf8_lossy(&content).into_owned()),
            _ => return Err(nonsense()),
        }))
    }
}

impl Job {
    /// Words end with a zero byte; an empty word separates the environment from the command.
    fn to_bytes(&self) -> Vec<u8> {
        let words = self.environment.iter().map(OsString::as_os_str).chain([OsStr::new("")]);
        let words = words.chain(self.command.iter().map(OsString::as_os_str));
        words.flat_map(|word| word.as_bytes().iter().copied().chain([0])).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let mut words: Vec<_> =
            bytes.split(|&byte| byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
        words.pop(); // behind the last zero byte is no word
        let end = words.iter().position(|word| word.is_empty()).unwrap_or(words.len());
        let command = words.split_off(end).into_iter().skip(1).collect();
        Self { environment: words, command }
    }
}

fn send(to: &mut impl Write, kind: u8, content: &[u8]) -> io::Result<()> {
    let size = u32::try_from(content.len()).ok().filter(|&size| size <= MAX_SIZE).ok_or_else(nonsense)?;
    let mut message = vec![kind];
    message.extend(size.to_le_bytes());
    message.extend(content);
    to.write_all(&message)?;
    to.flush()
}

fn receive(from: &mut impl Read) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut kind = Vec::with_capacity(1);
    from.by_ref().take(1).read_to_end(&mut kind)?;
    let Some(&kind) = kind.first() else {
        return Ok(None);
    };
    let mut size = [0; 4];
    from.read_exact(&mut size)?;
    let size = u32::from_le_bytes(size);
    if size > MAX_SIZE {
        return Err(nonsense());
    }
    let mut content = vec![0; size as usize];
    from.read_exact(&mut content)?;
    Ok(Some((kind, content)))
}

fn number(content: &[u8]) -> io::Result<i32> {
    content.try_into().map(i32::from_le_bytes).map_err(|_| nonsense())
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "nonsense on the wire between xtask and the emulated machine")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_arrive_as_they_were_sent() {
        let job = Job {
            environment: vec!["A=1".into(), "EMPTY=".into()],
            command: vec!["/bin/vmm".into(), "".into(), "ä b".into(), OsString::from_vec(vec![0xFF, b'\n'])],
        };
        let orders = [
            Order::Run(job),
            Order::Run(Job { environment: vec![], command: vec!["/x".into()] }),
            Order::Input(vec![0, 255, 13, 10]),
            Order::InputEnd,
            Order::OutputUnread,
            Order::Signal(15),
        ];
        let mut wire = Vec::new();
        for order in &orders {
            order.send(&mut wire).expect("memory takes all");
        }
        let mut wire = wire.as_slice();
        for order in orders {
            assert_eq!(Order::receive(&mut wire).expect("sent above"), Some(order));
        }
        assert_eq!(Order::receive(&mut wire).expect("the end"), None);
    }

    #[test]
    fn events_arrive_as_they_were_sent() {
        let events = [
            Event::Ready,
            Event::Output(Stream::Stdout, (0..=255).collect()),
            Event::Output(Stream::Stderr, vec![]),
            Event::InputTaken,
            Event::Ended(-1),
            Event::Failed("no such file".into()),
        ];
        let mut wire = Vec::new();
        for event in &events {
            event.send(&mut wire).expect("memory takes all");
        }
        let mut wire = wire.as_slice();
        for event in events {
            assert_eq!(Event::receive(&mut wire).expect("sent above"), Some(event));
        }
        assert_eq!(Event::receive(&mut wire).expect("the end"), None);
    }

    #[test]
    fn nonsense_and_torn_messages_are_errors() {
        for bytes in [&b"?\0\0\0\0"[..], b"r\xFF\xFF\xFF\xFF", b"o\x02\0\0\0x", b"o\x02", b"x\x01\0\0\0x"] {
            assert!(Event::receive(&mut &*bytes).is_err(), "{bytes:?}");
        }
        assert!(Order::receive(&mut &b"r\0\0\0\0"[..]).is_err(), "an event is no order");
    }
}
