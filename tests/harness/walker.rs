//! A page walker: what the CPU does with CR3 and an address, read from the manual and not from the VMM.
//!
//! It shares no code with `vmm/src/boot/page_tables.rs`, so that one mistake cannot hide in both. The machine it
//! walks for is ours: 4-level paging, `EFER.NXE` = 1, `CR0.WP` = 1, `CR4.PCIDE` = 0 (Intel SDM vol. 3A, 4.5 and 4.6).

use std::iter;

/// Reads page tables as the CPU does, out of whatever memory `read` reads.
pub(crate) struct Walker<R> {
    /// Reads the 64-bit word at a guest-physical address; `None` where no memory is.
    pub(crate) read: R,
    /// What CR3 holds.
    pub(crate) cr3: u64,
    /// `MAXPHYADDR` of the CPU: address bits from here to 51 are reserved.
    pub(crate) physical_bits: u32,
}

/// Where an address leads, and what may be done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    /// The guest-physical address.
    pub(crate) gpa: u64,
    /// Size of the page that maps it, in bytes.
    pub(crate) page_size: u64,
    /// Whether ring 0 can write.
    pub(crate) writable: bool,
    /// Whether instructions can be fetched.
    pub(crate) executable: bool,
    /// Whether ring 3 can get there at all.
    pub(crate) user: bool,
    /// Which entry of the PAT gives the memory type (4.9.2); 0 is write-back after reset.
    pub(crate) pat_entry: u64,
}

/// Why an address leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Bits 63 to 47 are not all the same: a general protection fault, before any table is read.
    NonCanonical,
    /// CR3 has bits set that no physical address has.
    ReservedCr3,
    /// An entry with P = 0.
    NotPresent(Level),
    /// An entry with a bit set that must be 0.
    ReservedBits {
        /// Where it stands.
        level: Level,
        /// The entry.
        entry: u64,
    },
    /// A table where no memory is.
    TableOutsideMemory(Level),
}

/// A table of the walk, by the number the manual counts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Pt = 1,
    Pd = 2,
    Pdpt = 3,
    Pml4 = 4,
}

/// Addresses that one entry decides about: a page, or all that an absent entry leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first address.
    pub(crate) start: u64,
    /// The last address; an exclusive end would not fit in 64 bits.
    pub(crate) last: u64,
    /// What the walk of `start` gave.
    pub(crate) outcome: Result<Translation, Fault>,
}

/// The addresses whose bit 47 is 0.
pub(crate) const LOWER_HALF: (u64, u64) = (0, (1 << 47) - 1);
/// The canonical addresses whose bit 47 is 1.
pub(crate) const UPPER_HALF: (u64, u64) = (!0 << 47, u64::MAX);

impl Level {
    const DOWNWARDS: [Self; 4] = [Self::Pml4, Self::Pdpt, Self::Pd, Self::Pt];

    /// How many bytes one entry is responsible for.
    pub(crate) fn entry_size(self) -> u64 {
        1 << self.shift()
    }

    /// Where the table's index starts in an address.
    fn shift(self) -> u32 {
        12 + 9 * (self as u32 - 1)
    }

    /// Whether a present `entry` of this level maps a page instead of pointing to a table.
    fn maps_page(self, entry: u64) -> bool {
        match self {
            Self::Pml4 => false,
            Self::Pdpt | Self::Pd => entry & PAGE_SIZE != 0,
            Self::Pt => true,
        }
    }

    /// The PAT entry that an `entry` which maps a page chooses: three bits of it, PAT, PCD and PWT.
    fn pat_entry(self, entry: u64) -> u64 {
        let attribute_table = match self {
            Self::Pt => SMALL_PAGE_ATTRIBUTE_TABLE,
            Self::Pd | Self::Pdpt | Self::Pml4 => LARGE_PAGE_ATTRIBUTE_TABLE,
        };
        [attribute_table, PAGE_CACHE_DISABLE, PAGE_WRITE_THROUGH]
            .iter()
            .fold(0, |number, bit| number << 1 | u64::from(entry & bit != 0))
    }

    /// The bits that must be 0 in a present `entry`, but for those beyond `MAXPHYADDR` (tables 4-15 to 4-20).
    fn reserved(self, entry: u64) -> u64 {
        match self {
            Self::Pml4 => PAGE_SIZE,
            Self::Pdpt if self.maps_page(entry) => bits(13, 29),
            Self::Pd if self.maps_page(entry) => bits(13, 20),
            Self::Pdpt | Self::Pd | Self::Pt => 0,
        }
    }
}

// Bits of an entry, by the manual's names. Where a page table has PAT, the levels above have PS, and PAT in bit 12.
const PRESENT: u64 = 1 << 0;
const READ_WRITE: u64 = 1 << 1;
const USER_SUPERVISOR: u64 = 1 << 2;
const PAGE_WRITE_THROUGH: u64 = 1 << 3;
const PAGE_CACHE_DISABLE: u64 = 1 << 4;
const PAGE_SIZE: u64 = 1 << 7;
const SMALL_PAGE_ATTRIBUTE_TABLE: u64 = 1 << 7;
const LARGE_PAGE_ATTRIBUTE_TABLE: u64 = 1 << 12;
const EXECUTE_DISABLE: u64 = 1 << 63;

/// A mask of bits `first` to `last`.
const fn bits(first: u32, last: u32) -> u64 {
    (u64::MAX >> (63 - last)) & (u64::MAX << first)
}

impl<R: Fn(u64) -> Option<u64>> Walker<R> {
    /// Walks from CR3 to the page that holds `gva`.
    pub(crate) fn walk(&self, gva: u64) -> Result<Translation, Fault> {
        let in_a_half = [LOWER_HALF, UPPER_HALF].iter().any(|half| half.0 <= gva && gva <= half.1);
        if !in_a_half {
            return Err(Fault::NonCanonical);
        }
        if self.cr3 & bits(self.physical_bits, 63) != 0 {
            return Err(Fault::ReservedCr3);
        }
        let mut table = self.cr3 & bits(12, 51);
        let (mut writable, mut executable, mut user) = (true, true, true);
        for level in Level::DOWNWARDS {
            let entry = self.entry(level, table, gva)?;
            // A right is given only when every level gives it (4.6.1).
            writable &= entry & READ_WRITE != 0;
            executable &= entry & EXECUTE_DISABLE == 0;
            user &= entry & USER_SUPERVISOR != 0;
            if level.maps_page(entry) {
                let page_size = level.entry_size();
                let page = entry & bits(12, 51) & !(page_size - 1);
                return Ok(Translation {
                    gpa: page | (gva & (page_size - 1)),
                    page_size,
                    writable,
                    executable,
                    user,
                    pat_entry: level.pat_entry(entry),
                });
            }
            table = entry & bits(12, 51);
        }
        unreachable!("an entry of a page table maps a page")
    }

    /// The present and well-formed entry for `gva` in the table at `table`.
    fn entry(&self, level: Level, table: u64, gva: u64) -> Result<u64, Fault> {
        let index = (gva >> level.shift()) & 0x1FF;
        let entry = (self.read)(table + index * 8).ok_or(Fault::TableOutsideMemory(level))?;
        if entry & PRESENT == 0 {
            return Err(Fault::NotPresent(level));
        }
        if entry & (level.reserved(entry) | bits(self.physical_bits, 51)) != 0 {
            return Err(Fault::ReservedBits { level, entry });
        }
        Ok(entry)
    }

    /// Everything the tables say about the addresses of `half`, lowest first and without a gap.
    ///
    /// One walk a span is a proof for all its addresses: they share every entry that is read.
    pub(crate) fn spans(&self, half: (u64, u64)) -> impl Iterator<Item = Span> {
        let (first, last) = half;
        let mut next = Some(first);
        iter::from_fn(move || {
            let start = next?;
            let outcome = self.walk(start);
            let size = match outcome {
                Ok(translation) => translation.page_size,
                Err(Fault::NotPresent(level)) => level.entry_size(),
                Err(_) => 1 << 12,
            };
            let span = Span { start, last: start | (size - 1), outcome };
            next = (span.last < last).then(|| span.last + 1);
            Some(span)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four tables, one behind the other from 0x1000; entry 0 of each points to the next, as `entries` say.
    fn walker(entries: [u64; 4]) -> Walker<impl Fn(u64) -> Option<u64>> {
        Walker {
            read: move |gpa| {
                let table = usize::try_from(gpa / 4096).ok()?.checked_sub(1)?;
                let entry = entries.get(table)?;
                Some(if gpa % 4096 == 0 { *entry } else { 0 })
            },
            cr3: 0x1000,
            physical_bits: 39,
        }
    }

    #[test]
    fn rights_are_what_all_levels_give() {
        let page = walker([0x2007, 0x3007, 0x4007, 0x1234_5007]).walk(0xABC);
        let everything = Translation {
            gpa: 0x1234_5ABC,
            page_size: 4096,
            writable: true,
            executable: true,
            user: true,
            pat_entry: 0,
        };
        assert_eq!(page, Ok(everything));

        let page = walker([0x2001 | EXECUTE_DISABLE, 0x3003, 0x4007, 0x1234_5007]).walk(0xABC);
        let nothing = Translation { writable: false, executable: false, user: false, ..everything };
        assert_eq!(page, Ok(nothing));
    }

    #[test]
    fn large_pages_end_the_walk_early() {
        let gigabyte = walker([0x2003, 0x4000_0083, 0, 0]).walk(0x12_3456);
        assert_eq!(gigabyte.map(|page| (page.gpa, page.page_size)), Ok((0x4012_3456, 1 << 30)));
        let two_megabytes = walker([0x2003, 0x3003, 0x60_0083, 0]).walk(0x12_3456);
        assert_eq!(two_megabytes.map(|page| (page.gpa, page.page_size)), Ok((0x72_3456, 2 << 20)));
    }

    #[test]
    fn the_memory_type_is_chosen_by_three_bits() {
        for (pd_entry, pt_entry, pat_entry) in
            [(0x4003, 0x1234_5083, 4), (0x4003, 0x1234_501B, 3), (0x60_1083, 0, 4), (0x60_0093, 0, 2)]
        {
            let page = walker([0x2003, 0x3003, pd_entry, pt_entry]).walk(0);
            assert_eq!(page.map(|page| page.pat_entry), Ok(pat_entry), "{pd_entry:#x} {pt_entry:#x}");
        }
    }

    #[test]
    fn what_stops_a_walk_is_named() {
        for (entries, gva, fault) in [
            ([0x2003, 0x3003, 0x4003, 0], 0, Fault::NotPresent(Level::Pt)),
            ([0x2003, 0x3003, 0x4003, 0x5003], 1 << 21, Fault::NotPresent(Level::Pd)),
            ([0x2003, 0x3003, 0x4003, 0x5003], 1 << 47, Fault::NonCanonical),
            ([0x2003, 0x9003, 0, 0], 0, Fault::TableOutsideMemory(Level::Pd)),
            ([0x2083, 0, 0, 0], 0, reserved(Level::Pml4, 0x2083)),
            ([0x2003, 0x2083, 0, 0], 0, reserved(Level::Pdpt, 0x2083)),
            ([0x2003, 0x3003, 0x2083, 0], 0, reserved(Level::Pd, 0x2083)),
            ([0x2003, 0x3003, 0x4003, 1 << 39 | 1], 0, reserved(Level::Pt, 1 << 39 | 1)),
        ] {
            assert_eq!(walker(entries).walk(gva), Err(fault), "{entries:x?}");
        }
    }

    fn reserved(level: Level, entry: u64) -> Fault {
        Fault::ReservedBits { level, entry }
    }

    #[test]
    fn spans_cover_a_half_without_a_gap() {
        let walker = walker([0x2003, 0x3003, 0x4003, 0x5003]);
        let spans: Vec<_> = walker.spans(LOWER_HALF).collect();
        assert_eq!(spans.first().map(|span| span.start), Some(LOWER_HALF.0));
        assert_eq!(spans.last().map(|span| span.last), Some(LOWER_HALF.1));
        assert!(spans.windows(2).all(|pair| pair[0].last + 1 == pair[1].start));
        assert_eq!(spans.iter().filter(|span| span.outcome.is_ok()).count(), 1);
    }
}
