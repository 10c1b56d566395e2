//! What hypercalls talk about: kinds, levels, flags, and structures that cross through memory.

use crate::answer::HypercallError;
use crate::define::{Argument, shared_enum, shared_struct};

shared_enum! {
    /// A kind of exit that is counted.
    pub enum ExitKind {
        /// Reads from ports.
        PioIn = 1,
        /// Writes to ports, other than hypercalls.
        PioOut = 2,
        /// Reads where no RAM is.
        MmioRead = 3,
        /// Writes where no RAM is.
        MmioWrite = 4,
        /// Hypercalls.
        Hypercall = 5,
        /// HLT.
        Halt = 6,
        /// Signals to the VMM, which are no doing of the guest.
        Interrupted = 7,
        /// The end of an interrupt from a line that may still be asserted: the I/O APIC must look.
        IoapicEoi = 8,
    }
}

shared_enum! {
    /// How important a log record is.
    pub enum LogLevel {
        /// Something failed.
        Error = 1,
        /// Something may be wrong.
        Warn = 2,
        /// Something happened.
        Info = 3,
        /// For whoever looks for a mistake.
        Debug = 4,
        /// For whoever looks very closely.
        Trace = 5,
    }
}

shared_enum! {
    /// Where an offset counts from.
    pub enum SeekOrigin {
        /// The start of the file.
        Start = 0,
        /// The position.
        Current = 1,
        /// The end of the file.
        End = 2,
    }
}

/// How a file is opened: a sum of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags(u64);

impl OpenFlags {
    /// For reading.
    pub const READ: Self = Self(1);
    /// For writing.
    pub const WRITE: Self = Self(2);
    /// Made when it does not exist.
    pub const CREATE: Self = Self(4);
    /// Emptied.
    pub const TRUNCATE: Self = Self(8);
    /// Every write goes to the end.
    pub const APPEND: Self = Self(16);
    /// Made, and an error when it exists.
    pub const CREATE_NEW: Self = Self(32);
    /// A directory, for [`Hypercall::DirectoryRead`](crate::Hypercall::DirectoryRead); goes with no other flag.
    pub const DIRECTORY: Self = Self(64);

    const ALL: u64 = 127;

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is set.
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds the flags to the contract.
    pub(crate) const fn describe(text: crate::contract::Text) -> crate::contract::Text {
        text.number("OpenFlags", "READ", Self::READ.0)
            .number("OpenFlags", "WRITE", Self::WRITE.0)
            .number("OpenFlags", "CREATE", Self::CREATE.0)
            .number("OpenFlags", "TRUNCATE", Self::TRUNCATE.0)
            .number("OpenFlags", "APPEND", Self::APPEND.0)
            .number("OpenFlags", "CREATE_NEW", Self::CREATE_NEW.0)
            .number("OpenFlags", "DIRECTORY", Self::DIRECTORY.0)
    }
}

impl Argument for OpenFlags {
    fn to_word(&self) -> u64 {
        self.0
    }

    fn from_word(word: u64) -> Result<Self, HypercallError> {
        if word & !Self::ALL == 0 { Ok(Self(word)) } else { Err(HypercallError::BadArgument) }
    }
}

shared_struct! {
    /// Where a guest-virtual address leads.
    pub struct Translation {
        /// The guest-physical address.
        pub gpa: u64,
        /// The address in the VMM's own space, or 0 when no RAM is there.
        pub hva: u64,
        /// Size of the page that maps it, in bytes.
        pub page_size: u64,
        /// 1 when it can be written, else 0.
        pub writable: u64,
        /// 1 when it can be executed, else 0.
        pub executable: u64,
        /// 1 when user mode can use it, else 0.
        pub user: u64,
    }
}

shared_struct! {
    /// What is at a path.
    pub struct FileStatus {
        /// Size in bytes.
        pub size: u64,
        /// 1 for a directory, 0 for a file.
        pub is_directory: u64,
        /// When it was changed, in nanoseconds since 1970-01-01 00:00 UTC; 0 when the host does not know.
        pub modified_ns: u64,
    }
}
