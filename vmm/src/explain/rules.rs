//! What the bits of an entry mean for a walk: where it leads, and which bits this CPU does not allow.

use x86_64::structures::paging::PageTableFlags as Entry;

use crate::page_walk::{Level, always_reserved};

/// What a CPU takes for a mistake in an entry, beside what every CPU does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// MAXPHYADDR: address bits from here to 51 are reserved.
    pub address_bits: u32,
    /// EFER.NXE: without it, bit 63 is reserved.
    pub no_execute: bool,
}

impl Rules {
    /// A CPU that takes no more than every one does.
    pub const WIDEST: Self = Self { address_bits: 52, no_execute: true };

    /// The bits of a present entry that are set and must not be (Intel SDM vol. 3A, tables 4-15 to 4-20).
    #[must_use]
    pub fn reserved_bits(self, level: Level, word: u64) -> u64 {
        let by_level = always_reserved(level, word);
        if level.is_32_bit() {
            return word & by_level;
        }
        // PAE leaves software no bits behind the address.
        let end = if level.is_pae() { Entry::NO_EXECUTE.bits() } else { 1 << 52 };
        let beyond = (end - 1) & !((1 << self.address_bits.min(52)) - 1);
        let no_execute = if self.no_execute { 0 } else { Entry::NO_EXECUTE.bits() };
        word & (by_level | beyond | no_execute)
    }
}

/// The address whose bits 63 to 48 are as bit 47 (Intel SDM vol. 1, 3.3.7.1).
#[must_use]
pub(super) fn canonical(gva: u64) -> u64 {
    (gva.cast_signed() << 16 >> 16).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_cpu_refuses_is_told_with_its_bits() {
        let rules = Rules { address_bits: 39, no_execute: false };
        for (level, word, reserved) in [
            (Level::Pml4, 0x2083, 0x80),
            (Level::Pd, 0x20_2083, 0x2000),
            (Level::Pd, 0x20_1083, 0),
            (Level::Pdpt, 0x60_0083, 0x60_0000),
            (Level::Pt, 1 << 39 | 1, 1 << 39),
            (Level::Pt, 1 << 63 | 1, 1 << 63),
            (Level::Pt, 0x7FF0_0000_0000_0E83, 0),
            (Level::PaePt, 0x7FF0_0000_0000_0E83, 0x7FF0_0000_0000_0000),
            (Level::PaePdpt, 0x2003, 2),
            (Level::Pd32, 0x60_0083, 0x20_0000),
            (Level::Pd32, 0x5F_E083, 0),
            (Level::Pd32WithoutPse, 0x60_0083, 0),
            (Level::Pt32, 0xFFFF_FFFF, 0),
        ] {
            assert_eq!(rules.reserved_bits(level, word), reserved, "{level} {word:#x}");
        }
    }
}
