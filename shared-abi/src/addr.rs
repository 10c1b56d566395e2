//! Addresses of the guest: physical ([`Gpa`]) and virtual ([`Gva`]).
//!
//! "Address" alone names nothing in a hypervisor: the same byte has a place in the guest's virtual space, one in
//! its physical space, and one in the VMM's own memory. The first two are numbers that both sides use. The third is
//! a host pointer (HVA); a guest can be told one, to look at, and can do nothing with it, so it has no type here.

use core::fmt;

/// Size of the smallest page, in bytes (Intel SDM vol. 3A, 4.1).
pub const PAGE_SIZE: u64 = 4096;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Adds `bytes`; `None` when the sum does not fit in 64 bits.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// Start of the 4 KiB page that holds this address.
            #[must_use]
            pub const fn page_start(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// Bytes between the start of the 4 KiB page and this address.
            #[must_use]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }
    };
}

address! {
    /// A guest-physical address: an offset into the machine's RAM or MMIO space.
    ///
    /// Having one says nothing about whether RAM lies there; the host's `GuestMemory` checks that.
    Gpa
}

address! {
    /// A guest-virtual address: what guest instructions use, before the guest's page tables translate it.
    ///
    /// Having one says nothing about whether it is canonical or mapped; only a page walk tells.
    Gva
}

/// Rounds `bytes` up to whole pages; `None` when that does not fit in 64 bits.
#[must_use]
pub const fn page_align_up(bytes: u64) -> Option<u64> {
    match bytes.checked_add(PAGE_SIZE - 1) {
        Some(sum) => Some(sum & !(PAGE_SIZE - 1)),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_start_and_offset_split_an_address() {
        let gpa = Gpa(0x10_1234);
        assert_eq!(gpa.page_start(), Gpa(0x10_1000));
        assert_eq!(gpa.page_offset(), 0x234);
    }

    #[test]
    fn rounding_up_at_the_end_of_the_address_space_is_refused() {
        assert_eq!(page_align_up(1), Some(PAGE_SIZE));
        assert_eq!(page_align_up(PAGE_SIZE), Some(PAGE_SIZE));
        assert_eq!(page_align_up(u64::MAX), None);
    }
}
