//! `Handles`: the files and directories that a guest has open, by number.
//!
//! As on Unix the smallest free number is given, and the first is 3, so that students see the numbers they know.

use std::fs::File;
use std::io::{self, Seek};

use shared_abi::HypercallError;
use shared_abi::hypercall::OpenFlags;

use super::listing::Listing;

/// The smallest handle.
const FIRST: u32 = 3;

/// What a handle stands for.
#[derive(Debug)]
pub(super) enum Handle {
    File(OpenFile),
    Directory(Listing),
}

/// A file with what it was opened for.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    flags: OpenFlags,
}

impl OpenFile {
    pub(super) fn new(file: File, flags: OpenFlags) -> Self {
        Self { file, flags }
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// The file, if it was opened for reading.
    pub(super) fn for_reading(&self) -> Result<&File, HypercallError> {
        if self.flags.has(OpenFlags::READ) { Ok(&self.file) } else { Err(HypercallError::BadHandle) }
    }

    /// The file, if it was opened for writing.
    pub(super) fn for_writing(&self) -> Result<&File, HypercallError> {
        let written = self.flags.has(OpenFlags::WRITE) || self.flags.has(OpenFlags::APPEND);
        if written { Ok(&self.file) } else { Err(HypercallError::BadHandle) }
    }

    /// Where the next write starts, and how far behind the end that is.
    pub(super) fn next_write(&self) -> io::Result<(u64, u64)> {
        let end = self.file.metadata()?.len();
        if self.flags.has(OpenFlags::APPEND) {
            return Ok((end, 0));
        }
        let position = (&self.file).stream_position()?;
        Ok((position, position.saturating_sub(end)))
    }
}

/// What a guest has open.
#[derive(Debug)]
pub(super) struct Handles {
    /// By handle, from [`FIRST`].
    slots: Vec<Option<Handle>>,
    limit: u32,
}

impl Handles {
    /// None open, and at most `limit` from now on.
    pub(super) fn new(limit: u32) -> Self {
        Self { slots: Vec::new(), limit: limit.min(u32::MAX - FIRST) }
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Frees all.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    /// The smallest handle that is free.
    pub(super) fn free(&self) -> Result<u32, HypercallError> {
        let index = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len()) as u32;
        if index < self.limit { Ok(FIRST + index) } else { Err(HypercallError::TooManyOpenFiles) }
    }

    /// Gives a free handle its meaning.
    pub(super) fn put(&mut self, number: u32, handle: Handle) {
        let index = (number - FIRST) as usize;
        if index == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[index] = Some(handle);
    }

    /// Frees a handle.
    pub(super) fn take(&mut self, number: u32) -> Result<Handle, HypercallError> {
        self.slot(number).and_then(Option::take).ok_or(HypercallError::BadHandle)
    }

    /// The file that a handle stands for.
    pub(super) fn file(&mut self, number: u32) -> Result<&OpenFile, HypercallError> {
        match self.slot(number) {
            Some(Some(Handle::File(file))) => Ok(file),
            _ => Err(HypercallError::BadHandle),
        }
    }

    /// The directory that a handle stands for.
    pub(super) fn directory(&mut self, number: u32) -> Result<&mut Listing, HypercallError> {
        match self.slot(number) {
            Some(Some(Handle::Directory(listing))) => Ok(listing),
            _ => Err(HypercallError::BadHandle),
        }
    }

    fn slot(&mut self, number: u32) -> Option<&mut Option<Handle>> {
        self.slots.get_mut(number.checked_sub(FIRST)? as usize)
    }
}
