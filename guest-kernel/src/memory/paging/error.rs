//! Why something cannot be mapped.

use core::fmt;

use shared_abi::Gva;

/// Why an address space refuses a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// Bits 63 to 47 of the address differ: no CPU uses it.
    NotCanonical {
        /// The address.
        gva: Gva,
    },
    /// The address is no multiple of the page's size.
    Misaligned {
        /// The address, virtual or physical.
        address: u64,
        /// Bytes of the page.
        size: u64,
    },
    /// The address is another space's: the kernel's, or a process's.
    OutsideSpace {
        /// The address.
        gva: Gva,
    },
    /// Something is there, perhaps of another page size; it must be unmapped first.
    AlreadyMapped {
        /// The address.
        gva: Gva,
    },
    /// Nothing is there.
    NotMapped {
        /// The address.
        gva: Gva,
    },
    /// Smaller pages are there.
    SmallerPages {
        /// The address.
        gva: Gva,
    },
    /// No frame is free for a page table.
    OutOfFrames,
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotCanonical { gva } => write!(f, "{gva} is not canonical"),
            Self::Misaligned { address, size } => write!(f, "{address:#x} is no multiple of {size:#x}"),
            Self::OutsideSpace { gva } => write!(f, "{gva} is not of this address space"),
            Self::AlreadyMapped { gva } => write!(f, "{gva} is mapped already: unmap it first"),
            Self::NotMapped { gva } => write!(f, "{gva} is not mapped"),
            Self::SmallerPages { gva } => write!(f, "{gva} is mapped by smaller pages: name one of them"),
            Self::OutOfFrames => f.write_str("no frame is free for a page table"),
        }
    }
}

impl core::error::Error for MapError {}
