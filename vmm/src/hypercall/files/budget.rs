//! `Budget`: what a guest may still add to the host's disk.
//!
//! A file can be made huge without writing much: one byte, far behind its end. So the gap before such a byte counts as
//! written too, and all files together never grow by more than the limit.

use shared_abi::HypercallError;

use super::Limits;

/// What a guest may still add.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_left: u64,
    files_left: u32,
    /// The size that the host lets this process give a file. A write at that size would end the VMM with SIGXFSZ.
    largest_file: u64,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        let Limits { written_bytes, made_files, .. } = limits;
        Self { bytes_left: written_bytes, files_left: made_files, largest_file: largest_file() }
    }

    /// How many bytes may be written from `start`, which is `gap` bytes behind the end of the file.
    pub(super) fn room(&self, start: u64, gap: u64) -> u64 {
        let in_file = self.largest_file.saturating_sub(start);
        self.bytes_left.saturating_sub(gap).min(in_file)
    }

    /// Takes off what was written.
    pub(super) fn pay(&mut self, gap: u64, written: u64) {
        if written > 0 {
            self.bytes_left = self.bytes_left.saturating_sub(gap.saturating_add(written));
        }
    }

    /// Whether one more file may be made.
    pub(super) fn check_make(&self) -> Result<(), HypercallError> {
        if self.files_left == 0 { Err(HypercallError::NoSpace) } else { Ok(()) }
    }

    /// Takes off a file that was made.
    pub(super) fn pay_make(&mut self) {
        self.files_left = self.files_left.saturating_sub(1);
    }
}

/// `RLIMIT_FSIZE`, and never more than a file's position can be.
pub(crate) fn largest_file() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit writes an `rlimit`, and this is one.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    let limit = if result == 0 { limit.rlim_cur } else { u64::MAX };
    limit.min(i64::MAX as u64)
}
