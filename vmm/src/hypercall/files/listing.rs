//! `Listing`: a directory being read, name by name.

use std::os::unix::ffi::OsStringExt;

use cap_std::fs::{Dir, DirEntry, ReadDir};
use shared_abi::HypercallError;
use shared_abi::hypercall::MAX_NAME;

use super::answer::hypercall_error;

/// At most so many bytes of names at once: what the host holds of a directory does not depend on the guest.
pub(super) const MAX_LISTING: u64 = 64 << 10;

/// A directory being read.
#[derive(Debug)]
pub(super) struct Listing {
    entries: ReadDir,
    /// A name that did not fit into the last buffer.
    held: Option<Vec<u8>>,
}

impl Listing {
    /// Opens the directory at `path`.
    pub(super) fn open(granted: &Dir, path: &str) -> Result<Self, HypercallError> {
        let entries = granted.read_dir(path).map_err(|error| hypercall_error(&error))?;
        Ok(Self { entries, held: None })
    }

    /// The next names, in at most `room` bytes; none at the end.
    pub(super) fn next_names(&mut self, room: u64) -> Result<Vec<u8>, HypercallError> {
        if room < MAX_NAME {
            return Err(HypercallError::BadArgument);
        }
        let mut names = Vec::new();
        while let Some(name) = self.next_name()? {
            if (names.len() + name.len()) as u64 > room {
                self.held = Some(name);
                break;
            }
            names.extend(name);
        }
        Ok(names)
    }

    /// The next name. One longer than the contract knows, which few file systems have, is left out.
    fn next_name(&mut self) -> Result<Option<Vec<u8>>, HypercallError> {
        if self.held.is_some() {
            return Ok(self.held.take());
        }
        for entry in &mut self.entries {
            let name = name_of(&entry.map_err(|error| hypercall_error(&error))?);
            if name.len() as u64 <= MAX_NAME {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

/// An entry's name as a guest sees it: a directory's with a `/`, each with a NUL.
fn name_of(entry: &DirEntry) -> Vec<u8> {
    let mut name = entry.file_name().into_vec();
    if is_directory(entry) {
        name.push(b'/');
    }
    name.push(0);
    name
}

/// What it is, if the host can tell. Some file systems do not say it in the listing and must be asked.
fn is_directory(entry: &DirEntry) -> bool {
    match entry.file_type() {
        Ok(kind) if kind.is_dir() => true,
        Ok(kind) if kind.is_file() || kind.is_symlink() => false,
        _ => entry.metadata().is_ok_and(|found| found.is_dir()),
    }
}
