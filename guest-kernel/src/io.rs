//! Reading, writing and seeking: `std::io` as far as it needs no heap.
//!
//! The names and what they do are those of `std::io`, so that what one knows from there works here:
//!
//! ```no_run,ignore-none
//! use guest_kernel::files::File;
//! use guest_kernel::io::{self, Read, Write};
//!
//! fn copy_the_start() -> io::Result<()> {
//!     let mut start = [0; 64];
//!     File::open("input.txt")?.read_exact(&mut start)?;
//!     let mut output = File::create("output.txt")?;
//!     output.write_all(&start)?;
//!     writeln!(output, "... and so on")
//! }
//! ```

use core::fmt;

use shared_abi::HypercallError;

/// A result of reading or writing.
pub type Result<T> = core::result::Result<T, Error>;

/// Why bytes were not read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The host's answer.
    Host(HypercallError),
    /// The end came before the buffer was full.
    UnexpectedEnd,
    /// Not one more byte could be written.
    WroteNothing,
    /// A `Display` of the program failed.
    Format,
    /// The heap has no room for it.
    OutOfMemory,
    /// It is not UTF-8.
    NotText,
}

impl From<HypercallError> for Error {
    fn from(error: HypercallError) -> Self {
        Self::Host(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(error) => write!(f, "the host answered {error:?}"),
            Self::UnexpectedEnd => f.write_str("the end came too early"),
            Self::WroteNothing => f.write_str("nothing more can be written"),
            Self::Format => f.write_str("a value could not be formatted"),
            Self::OutOfMemory => f.write_str("the heap has no room for it"),
            Self::NotText => f.write_str("it is not UTF-8"),
        }
    }
}

impl core::error::Error for Error {}

/// What bytes can be read from.
pub trait Read {
    /// Reads into `buffer`, perhaps less than it holds. Gives the bytes read; 0 at the end.
    ///
    /// # Errors
    /// As the source's.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// Reads until `buffer` is full or the end is reached. Gives the bytes read.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn read_to_fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read(rest)? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }

    /// Fills `buffer`.
    ///
    /// # Errors
    /// [`Error::UnexpectedEnd`], and as [`read`](Self::read).
    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<()> {
        let wanted = buffer.len();
        if self.read_to_fill(buffer)? == wanted { Ok(()) } else { Err(Error::UnexpectedEnd) }
    }
}

/// What bytes can be written to.
pub trait Write {
    /// Writes some of `bytes`. Gives how many.
    ///
    /// # Errors
    /// As the destination's.
    fn write(&mut self, bytes: &[u8]) -> Result<usize>;

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// [`Error::WroteNothing`], and as [`write`](Self::write).
    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write(rest)? {
                0 => return Err(Error::WroteNothing),
                count => rest = rest.get(count..).unwrap_or_default(),
            }
        }
        Ok(())
    }

    /// Writes formatted text; `write!` and `writeln!` end here. Each part of the text is a write of its own.
    ///
    /// # Errors
    /// As [`write_all`](Self::write_all).
    fn write_fmt(&mut self, text: fmt::Arguments<'_>) -> Result<()> {
        let mut adapter = Adapter { writer: self, result: Ok(()) };
        match fmt::write(&mut adapter, text) {
            Ok(()) => Ok(()),
            Err(fmt::Error) => adapter.result.and(Err(Error::Format)),
        }
    }
}

/// Takes text for a writer of bytes, and keeps the error, for which `fmt::Error` has no room.
struct Adapter<'a, W: ?Sized> {
    writer: &'a mut W,
    result: Result<()>,
}

impl<W: Write + ?Sized> fmt::Write for Adapter<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.result = self.writer.write_all(text.as_bytes());
        self.result.map_err(|_| fmt::Error)
    }
}

/// A place to seek to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekFrom {
    /// So many bytes behind the start.
    Start(u64),
    /// So many bytes behind the end; before it when negative.
    End(i64),
    /// So many bytes on from here; back when negative.
    Current(i64),
}

/// What has a position.
pub trait Seek {
    /// Moves the position. Gives the new one, from the start.
    ///
    /// # Errors
    /// When there is no such position.
    fn seek(&mut self, target: SeekFrom) -> Result<u64>;

    /// Moves the position to the start.
    ///
    /// # Errors
    /// As [`seek`](Self::seek).
    fn rewind(&mut self) -> Result<()> {
        self.seek(SeekFrom::Start(0)).map(drop)
    }

    /// The position, from the start.
    ///
    /// # Errors
    /// As [`seek`](Self::seek).
    fn stream_position(&mut self) -> Result<u64> {
        self.seek(SeekFrom::Current(0))
    }
}

/// Bytes in memory: reading takes them from the front.
impl Read for &[u8] {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = buffer.len().min(self.len());
        let (taken, rest) = self.split_at(count);
        buffer.iter_mut().zip(taken).for_each(|(to, from)| *to = *from);
        *self = rest;
        Ok(count)
    }
}

/// Room in memory: writing fills it from the front.
impl Write for &mut [u8] {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let count = bytes.len().min(self.len());
        let (room, rest) = core::mem::take(self).split_at_mut(count);
        room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        *self = rest;
        Ok(count)
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    /// Gives and takes one byte a call.
    struct Slow<T>(T);

    impl Read for Slow<&[u8]> {
        fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
            self.0.read(buffer.get_mut(..1).unwrap_or_default())
        }
    }

    impl Write for Slow<&mut [u8]> {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.0.write(bytes.get(..1).unwrap_or_default())
        }
    }

    #[test]
    fn a_buffer_is_filled_however_little_comes_at_once() {
        let mut buffer = [0; 3];
        Slow(&b"abcd"[..]).read_exact(&mut buffer).expect("enough bytes");
        assert_eq!(&buffer, b"abc");
        assert_eq!(Slow(&b"xy"[..]).read_to_fill(&mut buffer), Ok(2));
        assert_eq!(&buffer, b"xyc");
        assert_eq!(Slow(&b"xy"[..]).read_exact(&mut buffer), Err(Error::UnexpectedEnd));
        assert_eq!(Slow(&b""[..]).read_exact(&mut []), Ok(()));
    }

    #[test]
    fn all_is_written_however_little_is_taken_at_once() {
        let mut room = [0; 3];
        assert_eq!(Slow(&mut room[..]).write_all(b"abc"), Ok(()));
        assert_eq!(&room, b"abc");
        assert_eq!(Slow(&mut room[..]).write_all(b"wxyz"), Err(Error::WroteNothing));
    }

    #[test]
    fn formatted_text_is_written_and_its_error_is_kept() {
        let mut room = [0; 8];
        let mut writer = &mut room[..];
        writeln!(writer, "{}+{}", 1, 2).expect("room");
        assert_eq!(write!(writer, "{}", "too long"), Err(Error::WroteNothing));
        assert_eq!(&room, b"1+2\ntoo ");
    }

    #[test]
    fn a_value_that_cannot_be_formatted_is_an_error_of_its_own() {
        struct Mute;
        impl fmt::Display for Mute {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                Err(fmt::Error)
            }
        }
        assert_eq!(write!(&mut [0; 8][..], "{Mute}"), Err(Error::Format));
    }
}
