//! `Region`: a part of guest memory with one purpose and one set of rights.

use shared_abi::Gpa;

use crate::config::PageSize;
use crate::origin::Origin;

/// What a guest may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Not mapped: every access faults.
    None,
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
    /// Reading and executing.
    ReadExecute,
    /// Everything: what an image asks for that does not separate code from data.
    ReadWriteExecute,
}

impl Rights {
    /// The rights of a mapped page; x86-64 has no page that can be written or executed but not read.
    #[must_use]
    pub fn new(write: bool, execute: bool) -> Self {
        match (write, execute) {
            (false, false) => Self::Read,
            (true, false) => Self::ReadWrite,
            (false, true) => Self::ReadExecute,
            (true, true) => Self::ReadWriteExecute,
        }
    }

    /// Whether the page can be written.
    #[must_use]
    pub fn can_write(self) -> bool {
        matches!(self, Self::ReadWrite | Self::ReadWriteExecute)
    }

    /// Whether instructions can be fetched from the page.
    #[must_use]
    pub fn can_execute(self) -> bool {
        matches!(self, Self::ReadExecute | Self::ReadWriteExecute)
    }

    /// What two users of one page need together.
    #[must_use]
    pub(super) fn union(self, other: Self) -> Self {
        Self::new(self.can_write() || other.can_write(), self.can_execute() || other.can_execute())
    }
}

impl std::fmt::Display for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::None => "---",
            Self::Read => "r--",
            Self::ReadWrite => "rw-",
            Self::ReadExecute => "r-x",
            Self::ReadWriteExecute => "rwx",
        })
    }
}

/// What a region of guest memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Page 0.
    NullPage,
    /// The `BootInfo`.
    BootInfo,
    /// The guest's arguments.
    Arguments,
    /// The unmapped page below the stack for double faults.
    FaultStackGuard,
    /// The stack for double faults.
    FaultStack,
    /// The unmapped page below the stack for NMIs.
    NmiStackGuard,
    /// The stack for NMIs.
    NmiStack,
    /// The unmapped page below the stack for machine checks.
    MachineCheckStackGuard,
    /// The stack for machine checks.
    MachineCheckStack,
    /// The unmapped page below the stack.
    StackGuard,
    /// The stack of the first vCPU.
    Stack,
    /// The first page tables.
    PageTables,
    /// Pages of the kernel image.
    Image,
    /// RAM that nobody uses yet.
    Free,
}

impl RegionKind {
    /// A few words for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NullPage => "null page",
            Self::BootInfo => "boot info",
            Self::Arguments => "arguments",
            Self::FaultStackGuard => "fault stack guard",
            Self::FaultStack => "fault stack",
            Self::NmiStackGuard => "NMI stack guard",
            Self::NmiStack => "NMI stack",
            Self::MachineCheckStackGuard => "machine check stack guard",
            Self::MachineCheckStack => "machine check stack",
            Self::StackGuard => "stack guard",
            Self::Stack => "stack",
            Self::PageTables => "page tables",
            Self::Image => "kernel image",
            Self::Free => "free",
        }
    }
}

/// A region of guest memory: whole 4 KiB pages with one purpose and one set of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub start: Gpa,
    /// First address behind it.
    pub end: Gpa,
    /// What it is for.
    pub kind: RegionKind,
    /// What the guest may do with it.
    pub rights: Rights,
    /// The largest page that may map it.
    pub largest_page: PageSize,
    /// The line of the plan that placed it.
    pub placed_at: Origin,
}

impl Region {
    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.end.0 - self.start.0
    }

    /// The region's place, as text.
    #[must_use]
    pub fn range(&self) -> String {
        format!("{}..{}", self.start, self.end)
    }
}
