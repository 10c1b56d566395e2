//! What is wrong with a file of a snapshot.

use std::io;

use crate::error::Error;

/// What is wrong with a file of a snapshot.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A folder, a pipe.
    #[error("it is no regular file")]
    NotAFile,
    /// It does not start as one.
    #[error("it is no snapshot: it does not start with `DuetSnap`")]
    NotASnapshot,
    /// Another VMM wrote it.
    #[error("it has version {0} of the format, and this VMM reads version {own}; take it anew", own = super::header::VERSION)]
    OtherVersion(u32),
    /// Something is missing, or something hangs on.
    #[error("it has {has} bytes and should have {expected}: it was cut, or something was added")]
    WrongSize {
        /// The file's size.
        has: u64,
        /// What the header says, or a header has at least.
        expected: u64,
    },
    /// Some bit of it is not as it was written.
    #[error("it is damaged: the checksum of its {0} does not hold")]
    Damaged(&'static str),
    /// A part has more than is read.
    #[error("its {part} has {size} bytes, and at most {most} are read")]
    TooLarge {
        /// Which.
        part: &'static str,
        /// How many bytes it has.
        size: u64,
        /// How many it may have.
        most: u64,
    },
    /// It says what no machine can be.
    #[error("it describes no machine: {0}")]
    Malformed(String),
    /// It was taken on another CPU.
    #[error("it was taken on another CPU: {0}")]
    ForeignCpu(String),
    /// The kernel in it cannot be used.
    #[error("its kernel cannot be used")]
    Kernel(#[source] Box<Error>),
    /// The kernel cannot be put in.
    #[error("the kernel image cannot be read any more")]
    Image(#[source] io::Error),
    /// What the host could not do.
    #[error("the host cannot hold it")]
    Host(#[source] Box<Error>),
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It cannot be written.
    #[error("it cannot be written")]
    Write(#[source] io::Error),
}

/// A file that ends too soon has become shorter since its size was asked for.
pub(super) fn read_failed(error: io::Error) -> FileError {
    FileError::Read(error)
}
