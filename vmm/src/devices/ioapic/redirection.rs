//! A redirection entry: what becomes of a signal at a pin.
//!
//! ```text
//! bit  63      56          16  15     14    13    12     11    10   8  7      0
//!     ┌──────────┬───────┬────┬─────┬─────┬─────┬──────┬─────┬───────┬────────┐
//!     │destination│  …   │mask│level│rIRR │low  │status│logic│ mode  │ vector │
//!     └──────────┴───────┴────┴─────┴─────┴─────┴──────┴─────┴───────┴────────┘
//! ```
//! Intel 82093AA data sheet, 3.2.4.

use serde::{Deserialize, Serialize};

/// A redirection entry, as the guest wrote it, and whether an interrupt of it is being served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Redirection(u64);

impl Redirection {
    /// After reset nothing gets through.
    pub(super) const RESET: Self = Self(Self::MASK);

    /// Nothing gets through.
    const MASK: u64 = 1 << 16;
    /// Level-triggered, not edge-triggered.
    const LEVEL: u64 = 1 << 15;
    /// Remote IRR: a local APIC serves this level-triggered interrupt.
    const REMOTE_IRR: u64 = 1 << 14;
    /// "The message is on its way." Here messages arrive at once.
    const DELIVERY_STATUS: u64 = 1 << 12;
    /// The destination is a set of CPUs, not a number.
    const LOGICAL: u64 = 1 << 11;
    /// What only the controller changes.
    const READ_ONLY: u64 = Self::REMOTE_IRR | Self::DELIVERY_STATUS;
    /// Bits 17 to 55.
    const RESERVED: u64 = 0x00FF_FFFF_FFFE_0000;

    /// One of the two halves, as the guest reads it.
    pub(super) fn half(self, is_high: bool) -> u32 {
        (if is_high { self.0 >> 32 } else { self.0 }) as u32
    }

    /// The entry with one of its halves written. An edge-triggered one has nothing to wait for.
    pub(super) fn with_half(self, is_high: bool, value: u32) -> Self {
        let (value, shift) = (u64::from(value), if is_high { 32 } else { 0 });
        let changes = 0xFFFF_FFFF << shift & !Self::READ_ONLY & !Self::RESERVED;
        let written = Self(self.0 & !changes | value << shift & changes);
        if written.is_level() { written } else { written.ended() }
    }

    pub(super) fn is_masked(self) -> bool {
        self.0 & Self::MASK != 0
    }

    pub(super) fn is_level(self) -> bool {
        self.0 & Self::LEVEL != 0
    }

    /// Whether an interrupt of it is being served, so that the level is not looked at.
    pub(super) fn is_served(self) -> bool {
        self.0 & Self::REMOTE_IRR != 0
    }

    /// A level-triggered interrupt has been sent.
    pub(super) fn sent(self) -> Self {
        Self(self.0 | Self::REMOTE_IRR)
    }

    /// The interrupt has ended.
    pub(super) fn ended(self) -> Self {
        Self(self.0 & !Self::REMOTE_IRR)
    }

    pub(super) fn vector(self) -> u8 {
        self.0 as u8
    }

    /// What is sent for it.
    pub(super) fn message(self) -> Message {
        let destination = (self.0 >> 56) as u32;
        let is_logical = self.0 & Self::LOGICAL != 0;
        // Vector, delivery mode and trigger mode have the same places in both.
        let same = (0xFF | 7 << 8 | Self::LEVEL) & self.0;
        Message {
            address: Message::ADDRESS | destination << 12 | u32::from(is_logical) << 2,
            data: same as u32 | Message::ASSERT,
        }
    }
}

/// A message to local APICs: on hardware a write to the address (Intel SDM vol. 3A, 12.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Which APICs: 0xFEE in the highest bits, then the destination.
    pub address: u32,
    /// Vector, delivery mode, trigger mode.
    pub data: u32,
}

impl Message {
    const ADDRESS: u32 = 0xFEE0_0000;
    /// The level is "asserted"; without meaning for edges.
    const ASSERT: u32 = 1 << 14;

    /// The message that interrupts the CPU with the APIC id `cpu` by `vector`, once.
    #[must_use]
    pub const fn new(cpu: u8, vector: u8) -> Self {
        Self { address: Self::ADDRESS | (cpu as u32) << 12, data: vector as u32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_changes_neither_status_nor_remote_irr_nor_reserved_bits() {
        let entry = Redirection::RESET.with_half(false, u32::MAX).with_half(true, u32::MAX);
        assert_eq!((entry.half(false), entry.half(true)), (0x0001_AFFF, 0xFF00_0000));
        assert!(entry.sent().with_half(false, 0x8000).is_served(), "still level-triggered");
        assert!(!entry.sent().with_half(false, 0).is_served(), "an edge is over when it is sent");
    }

    #[test]
    fn a_message_has_destination_vector_mode_and_trigger() {
        // Logical destination 0x21, level-triggered, lowest priority, vector 0x45.
        let entry = Redirection::RESET.with_half(false, 0x8945).with_half(true, 0x2100_0000);
        assert_eq!(entry.message(), Message { address: 0xFEE2_1004, data: 0xC145 });
    }
}
