//! Files (being written).

use shared_abi::hypercall::{Answer, OpenFlags, SeekOrigin};
use shared_abi::{Gva, HypercallError};

use crate::guest_space::{GuestBuffer, GuestSpace};

/// A directory that the guest may use.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The directory.
    pub path: std::path::PathBuf,
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
    /// Bytes written in all.
    pub written_bytes: u64,
}

impl Default for Limits {
    /// 64 open files, 1 GiB written.
    fn default() -> Self {
        Self { open_files: 64, written_bytes: 1 << 30 }
    }
}

/// The files of one machine.
#[derive(Debug)]
pub struct Files {}

#[allow(missing_docs, unused)]
impl Files {
    pub fn new(grant: Option<Grant>) -> crate::Result<Self> {
        Ok(Self {})
    }
    pub(crate) fn open(&mut self, space: &GuestSpace<'_>, path: GuestBuffer, flags: OpenFlags) -> Answer {
        Err(HypercallError::NotGranted)
    }
    pub(crate) fn read(&mut self, space: &GuestSpace<'_>, handle: u32, buffer: GuestBuffer) -> Answer {
        Err(HypercallError::NotGranted)
    }
    pub(crate) fn write(&mut self, space: &GuestSpace<'_>, handle: u32, buffer: GuestBuffer) -> Answer {
        Err(HypercallError::NotGranted)
    }
    pub(crate) fn seek(&mut self, handle: u32, offset: i64, origin: SeekOrigin) -> Answer {
        Err(HypercallError::NotGranted)
    }
    pub(crate) fn close(&mut self, handle: u32) -> Answer {
        Err(HypercallError::NotGranted)
    }
    pub(crate) fn stat(&mut self, space: &GuestSpace<'_>, path: GuestBuffer, answer_gva: Gva) -> Answer {
        Err(HypercallError::NotGranted)
    }
    pub(crate) fn remove(&mut self, space: &GuestSpace<'_>, path: GuestBuffer) -> Answer {
        Err(HypercallError::NotGranted)
    }
    pub(crate) fn read_directory(
        &mut self,
        space: &GuestSpace<'_>,
        handle: u32,
        buffer: GuestBuffer,
    ) -> Answer {
        Err(HypercallError::NotGranted)
    }
}
