//! What a hypercall answers: a number, or the reason why not.

use crate::define::shared_enum;

shared_enum! {
    /// Why the host did not do what was asked. Nothing was transferred then.
    pub enum HypercallError {
        /// No call has this number.
        UnknownCall = 1,
        /// An argument has a value that means nothing.
        BadArgument = 2,
        /// Memory that is not mapped, not writable, or not RAM.
        BadAddress = 3,
        /// More than a call transfers.
        TooLarge = 4,
        /// The user granted no directory, or not for writing: `--dir PATH:rw`; or keeps no snapshots: `--snapshot-to FILE`.
        NotGranted = 5,
        /// No such file, or no such CPU.
        NotFound = 6,
        /// There is a file of that name, or the CPU runs.
        AlreadyExists = 7,
        /// The path leads out of the granted directory, or the host does not permit it; or the machine cannot be kept now.
        NotPermitted = 8,
        /// A directory where a file is wanted.
        IsADirectory = 9,
        /// A file where a directory is wanted.
        NotADirectory = 10,
        /// No open file has this handle, or it is not open for this.
        BadHandle = 11,
        /// As many files are open as may be.
        TooManyOpenFiles = 12,
        /// The bytes that the guest may write are used up, or the host's disk is full.
        NoSpace = 13,
        /// A path or text that is not UTF-8, or is empty.
        BadText = 14,
        /// There is no input yet.
        WouldBlock = 15,
        /// The host failed for a reason of its own.
        HostFailed = 16,
    }
}

/// What the host answered: RAX is 0 and RDI the answer, or RAX is the error.
pub type Answer = Result<u64, HypercallError>;

/// The registers that carry an answer: RAX and RDI.
#[must_use]
pub const fn encode_answer(answer: Answer) -> (u64, u64) {
    match answer {
        Ok(value) => (0, value),
        Err(error) => (error as u64, 0),
    }
}

/// The answer that RAX and RDI carry; an unknown error is [`HypercallError::HostFailed`].
#[inline]
pub const fn decode_answer(rax: u64, rdi: u64) -> Answer {
    if rax == 0 {
        return Ok(rdi);
    }
    match HypercallError::from_number(rax) {
        Some(error) => Err(error),
        None => Err(HypercallError::HostFailed),
    }
}
