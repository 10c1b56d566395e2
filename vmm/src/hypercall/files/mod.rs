//! Files: what a guest may use of the host's, and what keeps it there.
//!
//! Without a grant there are none. A grant is one directory, opened when the machine is made. Every path is resolved
//! from that descriptor and beneath it, by the host's kernel: openat2(2) with `RESOLVE_BENEATH`, through the crate
//! cap-std. So neither `..` nor an absolute path, a symbolic link or a door in `/proc` leads out, and between check and
//! use there is no moment in which somebody could exchange a directory for a link.
//!
//! ```text
//! path   ──► granted directory, beneath it only ──► file or directory ──► handle 3, 4, …   `open.rs`, `handles.rs`
//! handle ──► file ◄── read(2), write(2) ──► guest RAM, without a copy                      `transfer.rs`
//!            each write is paid from what the grant allows                                 `budget.rs`
//! handle ──► directory ──► names, as many as fit                                           `listing.rs`
//! ```
//!
//! What the user put there is inside: hard links, mounts. Symbolic links may lead from one place inside to another.
//!
//! Guest side: `guest-kernel/src/files.rs`.

mod answer;
mod budget;
mod handles;
mod listing;
mod open;
mod transfer;

#[cfg(test)]
mod tests;

use std::io::{Seek, SeekFrom};
use std::path::PathBuf;

use cap_std::ambient_authority;
use cap_std::fs::Dir;
use shared_abi::hypercall::{Answer, FileStatus, MAX_PATH, OpenFlags, SeekOrigin};
use shared_abi::{Gva, HypercallError};

use super::space::bytes_of;
use crate::error::Error;
use crate::guest_space::{Access, GuestBuffer, GuestSpace};
use answer::hypercall_error;
use budget::Budget;
pub(crate) use budget::largest_file;
use handles::{Handle, Handles};
use listing::{Listing, MAX_LISTING};
use transfer::MAX_TRANSFER;

/// A directory that the guest may use.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The directory.
    pub path: PathBuf,
    /// What the guest may do there.
    pub mode: GrantMode,
    /// How much.
    pub limits: Limits,
}

/// What a guest may do in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantMode {
    /// Reading.
    ReadOnly,
    /// Reading, writing, creating and removing.
    ReadWrite,
}

/// How much a guest may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Files and directories open at once.
    pub open_files: u32,
    /// Bytes written in all; a gap that a write leaves behind the end of a file counts as written.
    pub written_bytes: u64,
    /// Files made in all: an empty one costs the host's disk something too.
    pub made_files: u32,
}

impl Default for Limits {
    /// 64 open files, 1 GiB written, 65,536 files made.
    fn default() -> Self {
        Self { open_files: 64, written_bytes: 1 << 30, made_files: 1 << 16 }
    }
}

/// The files of one machine.
#[derive(Debug)]
pub struct Files {
    granted: Option<Granted>,
}

/// What a grant has become.
#[derive(Debug)]
struct Granted {
    directory: Dir,
    mode: GrantMode,
    handles: Handles,
    budget: Budget,
}

impl Files {
    /// The files that `grant` allows.
    ///
    /// # Errors
    /// [`Error::GrantedDirectory`].
    pub fn new(grant: Option<Grant>) -> crate::Result<Self> {
        Ok(Self { granted: grant.map(Granted::new).transpose()? })
    }

    /// How many files and directories are open.
    pub(crate) fn open_count(&self) -> usize {
        self.granted.as_ref().map_or(0, |granted| granted.handles.count())
    }

    /// Closes all of them.
    pub(crate) fn close_all(&mut self) {
        self.granted.iter_mut().for_each(|granted| granted.handles.clear());
    }

    /// What the guest may use, if anything.
    fn granted(&mut self) -> Result<&mut Granted, HypercallError> {
        self.granted.as_mut().ok_or(HypercallError::NotGranted)
    }

    /// Opens a file or directory. Answers its handle.
    pub(crate) fn open(&mut self, space: &GuestSpace<'_>, path: GuestBuffer, flags: OpenFlags) -> Answer {
        let Granted { directory, mode, handles, budget } = self.granted()?;
        open::check(flags, *mode)?;
        let path = read_path(space, path)?;
        // A free handle first: with none, nothing is created or emptied.
        let number = handles.free()?;
        let handle = if flags.has(OpenFlags::DIRECTORY) {
            Handle::Directory(Listing::open(directory, &path)?)
        } else {
            Handle::File(open::file(directory, &path, flags, budget)?)
        };
        handles.put(number, handle);
        Ok(number.into())
    }

    /// Reads at the file's position. Answers the bytes read.
    pub(crate) fn read(&mut self, space: &GuestSpace<'_>, handle: u32, buffer: GuestBuffer) -> Answer {
        let file = self.granted()?.handles.file(handle)?.for_reading()?;
        let buffer = transfer::part(space, buffer, Access::Write, MAX_TRANSFER)?;
        transfer::read(file, space, buffer)
    }

    /// Writes at the file's position, as many bytes as are still allowed. Answers their number.
    pub(crate) fn write(&mut self, space: &GuestSpace<'_>, handle: u32, buffer: GuestBuffer) -> Answer {
        let Granted { handles, budget, .. } = self.granted()?;
        let open = handles.file(handle)?;
        let file = open.for_writing()?;
        let mut buffer = transfer::part(space, buffer, Access::Read, MAX_TRANSFER)?;
        if buffer.size == 0 {
            return Ok(0);
        }
        let (start, gap) = open.next_write().map_err(|error| hypercall_error(&error))?;
        buffer.size = buffer.size.min(budget.room(start, gap));
        if buffer.size == 0 {
            return Err(HypercallError::NoSpace);
        }
        let written = transfer::write(file, space, buffer)?;
        budget.pay(gap, written);
        Ok(written)
    }

    /// Moves the file's position. Answers the new one.
    pub(crate) fn seek(&mut self, handle: u32, offset: i64, origin: SeekOrigin) -> Answer {
        let mut file = self.granted()?.handles.file(handle)?.file();
        let target = match origin {
            SeekOrigin::Start => {
                SeekFrom::Start(u64::try_from(offset).map_err(|_| HypercallError::BadArgument)?)
            }
            SeekOrigin::Current => SeekFrom::Current(offset),
            SeekOrigin::End => SeekFrom::End(offset),
        };
        file.seek(target).map_err(|error| hypercall_error(&error))
    }

    /// Closes a file or directory.
    pub(crate) fn close(&mut self, handle: u32) -> Answer {
        self.granted()?.handles.take(handle).map(|_| 0)
    }

    /// Tells what is at a path; a link inside is followed.
    pub(crate) fn stat(&mut self, space: &GuestSpace<'_>, path: GuestBuffer, answer_gva: Gva) -> Answer {
        let directory = &self.granted()?.directory;
        let path = read_path(space, path)?;
        let found = directory.metadata(path).map_err(|error| hypercall_error(&error))?;
        if !found.is_dir() && !found.is_file() {
            return Err(HypercallError::NotPermitted);
        }
        let status = FileStatus {
            size: found.len(),
            is_directory: found.is_dir().into(),
            modified_ns: answer::modified_ns(&found),
        };
        space.write(answer_gva, &bytes_of(&status)).map(|()| 0)
    }

    /// Removes a file; of a link, the link.
    pub(crate) fn remove(&mut self, space: &GuestSpace<'_>, path: GuestBuffer) -> Answer {
        let Granted { directory, mode, .. } = self.granted()?;
        if *mode == GrantMode::ReadOnly {
            return Err(HypercallError::NotGranted);
        }
        let path = read_path(space, path)?;
        directory.remove_file(path).map(|()| 0).map_err(|error| hypercall_error(&error))
    }

    /// Copies the next names of a directory. Answers the bytes copied.
    pub(crate) fn read_directory(
        &mut self,
        space: &GuestSpace<'_>,
        handle: u32,
        buffer: GuestBuffer,
    ) -> Answer {
        let listing = self.granted()?.handles.directory(handle)?;
        let buffer = transfer::part(space, buffer, Access::Write, MAX_LISTING)?;
        let names = listing.next_names(buffer.size)?;
        space.write(buffer.gva, &names).map(|()| names.len() as u64)
    }
}

impl Granted {
    fn new(grant: Grant) -> crate::Result<Self> {
        let Grant { path, mode, limits } = grant;
        match Dir::open_ambient_dir(&path, ambient_authority()) {
            Ok(directory) => Ok(Self {
                directory,
                mode,
                handles: Handles::new(limits.open_files),
                budget: Budget::new(limits),
            }),
            Err(source) => Err(Error::GrantedDirectory { path, source }),
        }
    }
}

/// The path that a guest names: UTF-8, and not empty.
fn read_path(space: &GuestSpace<'_>, path: GuestBuffer) -> Result<String, HypercallError> {
    let path = space.read_text(path, MAX_PATH)?;
    if path.is_empty() { Err(HypercallError::BadText) } else { Ok(path) }
}
