//! Files of the host: what lies in the directory that `vmm run --dir PATH` grants.
//!
//! Paths are relative to that directory; nothing outside can be named. Each call is one exit, whatever the size of the
//! buffer, so read and write in large pieces.
//!
//! ```no_run,ignore-none
//! use guest_kernel::files::{self, Directory, File};
//! use guest_kernel::io::{self, Read};
//! use guest_kernel::println;
//!
//! fn show_all() -> io::Result<()> {
//!     let mut directory = Directory::open(".")?;
//!     while let Some(entry) = directory.next_entry()? {
//!         println!("{} {}", files::stat(entry.name()?)?.size, entry.name()?);
//!     }
//!     Ok(())
//! }
//! ```
//!
//! Host side: `vmm/src/hypercall/files/mod.rs`.

mod whole;

use core::ffi::CStr;

use shared_abi::Gva;
use shared_abi::define::Argument;
pub use shared_abi::hypercall::FileStatus;
use shared_abi::hypercall::{Answer, Hypercall, HypercallError, MAX_NAME, OpenFlags, SeekOrigin};

use crate::hypercall::{call, gva_of, gva_of_mut};
use crate::io::{self, Read, Seek, SeekFrom, Write};
pub use whole::{read, read_to_string, write};

/// An open file; closed when dropped.
#[derive(Debug)]
pub struct File {
    handle: u32,
}

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// As the host's.
    pub fn open(path: &str) -> io::Result<Self> {
        Self::options().read(true).open(path)
    }

    /// Opens a file for writing: makes it, or empties the one there is.
    ///
    /// # Errors
    /// As the host's.
    pub fn create(path: &str) -> io::Result<Self> {
        Self::options().write(true).create(true).truncate(true).open(path)
    }

    /// Opens a file in another way.
    #[must_use]
    pub fn options() -> OpenOptions {
        OpenOptions::default()
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (buffer_gva, buffer_size) = (gva_of_mut(buffer), buffer.len() as u64);
        count(call(Hypercall::FileRead { handle: self.handle, buffer_gva, buffer_size }))
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (buffer_gva, buffer_size) = (gva_of(bytes), bytes.len() as u64);
        count(call(Hypercall::FileWrite { handle: self.handle, buffer_gva, buffer_size }))
    }
}

impl Seek for File {
    fn seek(&mut self, target: SeekFrom) -> io::Result<u64> {
        let (offset, origin) = match target {
            SeekFrom::Start(offset) => {
                (i64::try_from(offset).map_err(|_| HypercallError::BadArgument)?, SeekOrigin::Start)
            }
            SeekFrom::Current(offset) => (offset, SeekOrigin::Current),
            SeekFrom::End(offset) => (offset, SeekOrigin::End),
        };
        Ok(call(Hypercall::FileSeek { handle: self.handle, offset, origin })?)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        close(self.handle);
    }
}

/// How to open a file, as `std::fs::OpenOptions`.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    flags: OpenFlags,
}

impl OpenOptions {
    /// For reading.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.set(OpenFlags::READ, read)
    }

    /// For writing.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.set(OpenFlags::WRITE, write)
    }

    /// For writing at the end, always.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.set(OpenFlags::APPEND, append)
    }

    /// Emptied. Wants `write`.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.set(OpenFlags::TRUNCATE, truncate)
    }

    /// Made when it does not exist. Wants `write` or `append`.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.set(OpenFlags::CREATE, create)
    }

    /// Made, and an error when it exists. Wants `write` or `append`.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.set(OpenFlags::CREATE_NEW, create_new)
    }

    /// Opens the file at `path`.
    ///
    /// # Errors
    /// As the host's.
    pub fn open(&self, path: &str) -> io::Result<File> {
        open(path, self.flags).map(|handle| File { handle })
    }

    fn set(&mut self, flag: OpenFlags, on: bool) -> &mut Self {
        let others = self.flags.to_word() & !flag.to_word();
        let word = if on { others | flag.to_word() } else { others };
        self.flags = OpenFlags::from_word(word).unwrap_or_default();
        self
    }
}

/// Tells what is at a path.
///
/// # Errors
/// As the host's.
pub fn stat(path: &str) -> io::Result<FileStatus> {
    let mut status = FileStatus::default();
    let answer_gva = Gva((&raw mut status) as u64);
    call(Hypercall::FileStat {
        path_gva: gva_of(path.as_bytes()),
        path_size: path.len() as u64,
        answer_gva,
    })?;
    Ok(status)
}

/// Removes a file.
///
/// # Errors
/// As the host's.
pub fn remove(path: &str) -> io::Result<()> {
    let (path_gva, path_size) = (gva_of(path.as_bytes()), path.len() as u64);
    call(Hypercall::FileRemove { path_gva, path_size })?;
    Ok(())
}

/// A directory being read; closed when dropped.
///
/// It holds the names that came with the last exit, so it has no heap to wait for and stands on the caller's stack.
#[derive(Debug)]
pub struct Directory {
    handle: u32,
    names: [u8; Self::SIZE],
    /// Where in `names` the next name starts, and where the last one ends.
    next: usize,
    end: usize,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    name: &'a [u8],
    is_directory: bool,
}

impl Directory {
    /// Room for dozens of names an exit, and for the longest.
    const SIZE: usize = 1024;

    /// Opens a directory; the granted one is `.`.
    ///
    /// # Errors
    /// As the host's.
    pub fn open(path: &str) -> io::Result<Self> {
        let handle = open(path, OpenFlags::DIRECTORY)?;
        Ok(Self { handle, names: [0; Self::SIZE], next: 0, end: 0 })
    }

    /// The next name, in no particular order; `None` when there are no more.
    ///
    /// # Errors
    /// As the host's.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry<'_>>> {
        if self.next == self.end {
            let (buffer_gva, buffer_size) = (gva_of_mut(&mut self.names), Self::SIZE as u64);
            self.end =
                count(call(Hypercall::DirectoryRead { handle: self.handle, buffer_gva, buffer_size }))?;
            self.next = 0;
        }
        let names = self.names.get(self.next..self.end).unwrap_or_default();
        let Some((entry, taken)) = first_entry(names) else { return Ok(None) };
        self.next += taken;
        Ok(Some(entry))
    }
}

const _: () = assert!(Directory::SIZE as u64 >= MAX_NAME);

impl Drop for Directory {
    fn drop(&mut self) {
        close(self.handle);
    }
}

impl<'a> Entry<'a> {
    /// The name.
    ///
    /// # Errors
    /// `BadText` when the host has one that is not UTF-8; [`name_bytes`](Self::name_bytes) gives it.
    pub fn name(&self) -> io::Result<&'a str> {
        Ok(core::str::from_utf8(self.name).map_err(|_| HypercallError::BadText)?)
    }

    /// The name as the host has it.
    #[must_use]
    pub fn name_bytes(&self) -> &'a [u8] {
        self.name
    }

    /// Whether it is a directory's.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        self.is_directory
    }
}

/// The first of `names`, each of which ends with a NUL, and the bytes it takes; a directory's has a `/`.
fn first_entry(names: &[u8]) -> Option<(Entry<'_>, usize)> {
    let name = CStr::from_bytes_until_nul(names).ok()?.to_bytes();
    let taken = name.len() + 1;
    let entry = match name.strip_suffix(b"/") {
        Some(name) => Entry { name, is_directory: true },
        None => Entry { name, is_directory: false },
    };
    Some((entry, taken))
}

fn open(path: &str, flags: OpenFlags) -> io::Result<u32> {
    let (path_gva, path_size) = (gva_of(path.as_bytes()), path.len() as u64);
    Ok(call(Hypercall::FileOpen { path_gva, path_size, flags })? as u32)
}

/// Closes a handle. It is ours and open, so there is nothing that the host could say against it.
fn close(handle: u32) {
    let _ = call(Hypercall::FileClose { handle });
}

fn count(answer: Answer) -> io::Result<usize> {
    Ok(answer? as usize)
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_at_their_nuls_and_directories_known_by_their_slash() {
        let names = b"file\0folder/\0\xFF\0";
        let (file, taken) = first_entry(names).expect("three names");
        assert_eq!((file.name(), file.is_directory(), taken), (Ok("file"), false, 5));
        let (folder, taken) = first_entry(&names[5..]).expect("two names");
        assert_eq!((folder.name(), folder.is_directory(), taken), (Ok("folder"), true, 8));
        let (strange, _) = first_entry(&names[13..]).expect("one name");
        assert_eq!(strange.name(), Err(io::Error::Host(HypercallError::BadText)));
        assert_eq!(strange.name_bytes(), b"\xFF");
        assert_eq!(first_entry(b""), None);
        assert_eq!(first_entry(b"no end"), None);
    }

    #[test]
    fn an_option_that_is_taken_back_is_off() {
        let mut options = File::options();
        options.read(true).write(true).create(true).write(false).create(false);
        assert_eq!(options.flags, OpenFlags::READ);
    }
}
