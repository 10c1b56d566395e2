//! The page walk: how a CPU translates a virtual address, step by step.
//!
//! Pure: it reads guest memory through a function and so works on tables that the host built, that the guest built, or
//! that a test made up. It follows the Intel SDM vol. 3A, 4.3 to 4.5: two levels, three, or four ([`Paging`]); the format
//! of the entries is drawn in [`boot::page_tables`](crate::boot::page_tables). Unlike a CPU it sets no accessed and dirty
//! bits.
//!
//! [`Walker`] is for those who need the answer, often; [`trace`] keeps every step for those who ask why. All that tables
//! map is found by [`explain::scan`](crate::explain::scan).

mod level;
mod trace;

pub use level::{Level, PageTables, Paging};
pub use trace::{WalkStep, WalkTrace, trace};

use shared_abi::{Gpa, Gva};
use x86_64::structures::paging::PageTableFlags as Entry;

use crate::config::PageSize;

/// Where a virtual address leads, and with which rights: those that all levels grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The physical address.
    pub gpa: Gpa,
    /// The page that maps it.
    pub page_size: PageSize,
    /// Whether it can be written.
    pub writable: bool,
    /// Whether instructions can be fetched.
    pub executable: bool,
    /// Whether user mode may use it.
    pub user: bool,
}

/// Why a walk ended without a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// Bits 63 to 47 of the address are not all equal; or, outside 64-bit mode, it has more than 32 bits.
    NonCanonical,
    /// The entry at this address is not present.
    NotPresent(Gpa),
    /// The entry at this address has a bit set that must be 0.
    ReservedBit(Gpa),
    /// The entry at this address is not in RAM.
    TableOutsideRam(Gpa),
}

/// Bits 51 to 12: the address in an entry.
const ADDRESS_MASK: u64 = 0x000F_FFFF_FFFF_F000;

/// Translates `gva` with these tables, or with those of 64-bit mode that a CR3 points to; `read` gives the 64-bit word at
/// a GPA, or `None` outside RAM.
///
/// # Errors
/// Where and why the walk ends early.
pub fn walk(
    tables: impl Into<PageTables>,
    gva: Gva,
    read: impl Fn(Gpa) -> Option<u64>,
) -> Result<Mapping, WalkError> {
    Walker::new(tables).walk(gva, read)
}

/// Translates address after address, and remembers the last-level table that it met last: the next page's entry is
/// most often in the same one.
#[derive(Clone, Debug)]
pub struct Walker {
    tables: PageTables,
    last: Option<LastTable>,
}

/// A table of the last level, and what led there.
#[derive(Clone, Copy, Debug)]
struct LastTable {
    /// The addresses it translates, without the bits in which they differ.
    prefix: u64,
    table: Gpa,
    rights: Rights,
}

/// What all levels so far grant.
#[derive(Clone, Copy, Debug)]
struct Rights {
    writable: bool,
    executable: bool,
    user: bool,
}

impl Rights {
    const ALL: Self = Self { writable: true, executable: true, user: true };

    fn and(self, level: Level, word: u64) -> Self {
        // The four entries at the top of PAE paging have no such bits, and those of 32-bit paging no bit 63.
        if level == Level::PaePdpt {
            return self;
        }
        let entry = Entry::from_bits_retain(word);
        Self {
            writable: self.writable && entry.contains(Entry::WRITABLE),
            executable: self.executable && !entry.contains(Entry::NO_EXECUTE),
            user: self.user && entry.contains(Entry::USER_ACCESSIBLE),
        }
    }
}

impl Walker {
    /// A walker of these tables, or of those of 64-bit mode that a CR3 points to.
    #[must_use]
    pub fn new(tables: impl Into<PageTables>) -> Self {
        Self { tables: tables.into(), last: None }
    }

    /// Translates `gva`.
    ///
    /// # Errors
    /// Where and why the walk ends early.
    pub fn walk(&mut self, gva: Gva, read: impl Fn(Gpa) -> Option<u64>) -> Result<Mapping, WalkError> {
        let paging = self.tables.paging;
        if !is_translated(paging, gva) {
            return Err(WalkError::NonCanonical);
        }
        let last = paging.last();
        let prefix = gva.0 / last.table_size();
        let known = self.last.filter(|last| last.prefix == prefix);
        let (mut level, mut table, mut rights) = match known {
            Some(known) => (last, known.table, known.rights),
            None => (paging.root(), self.tables.root(), Rights::ALL),
        };
        loop {
            if level == last {
                self.last = Some(LastTable { prefix, table, rights });
            }
            let entry_gpa = entry_gpa(level, table, gva);
            let word = read_entry(level, entry_gpa, &read).ok_or(WalkError::TableOutsideRam(entry_gpa))?;
            match follow(gva, level, entry_gpa, word, rights)? {
                Leads::ToPage(mapping) => return Ok(mapping),
                Leads::ToTable(below, next, granted) => (level, table, rights) = (below, next, granted),
            }
        }
    }
}

/// Where a present entry leads.
enum Leads {
    ToTable(Level, Gpa, Rights),
    ToPage(Mapping),
}

/// Where the entry stands that translates `gva`, in a table at `table`.
#[inline]
fn entry_gpa(level: Level, table: Gpa, gva: Gva) -> Gpa {
    Gpa(table.0 + level.index(gva.0) * level.entry_bytes())
}

/// The entry at `gpa`: a word of `read`, or half of one.
#[inline]
fn read_entry(level: Level, gpa: Gpa, read: impl Fn(Gpa) -> Option<u64>) -> Option<u64> {
    if !level.is_32_bit() {
        return read(gpa);
    }
    let word = read(Gpa(gpa.0 & !7))?;
    Some(word >> ((gpa.0 & 4) * 8) & 0xFFFF_FFFF)
}

/// Where the entry `word` leads, behind levels that grant `rights`.
#[inline]
fn follow(gva: Gva, level: Level, entry_gpa: Gpa, word: u64, rights: Rights) -> Result<Leads, WalkError> {
    if word & Entry::PRESENT.bits() == 0 {
        return Err(WalkError::NotPresent(entry_gpa));
    }
    if word & always_reserved(level, word) != 0 {
        return Err(WalkError::ReservedBit(entry_gpa));
    }
    let Rights { writable, executable, user } = rights.and(level, word);
    let target = level.target(word);
    match (level.page(word), level.below()) {
        (None, Some(below)) => Ok(Leads::ToTable(below, target, Rights { writable, executable, user })),
        (page, _) => {
            let page_size = page.unwrap_or(PageSize::Size4K);
            let gpa = Gpa(target.0 | (gva.0 & (page_size.bytes() - 1)));
            Ok(Leads::ToPage(Mapping { gpa, page_size, writable, executable, user }))
        }
    }
}

/// The bits of a present entry that are 0 on every CPU (Intel SDM vol. 3A, tables 4-4 to 4-20). Those that only some
/// reserve, such as addresses beyond their reach, are for [`explain`](crate::explain) to tell.
#[inline]
pub(crate) fn always_reserved(level: Level, word: u64) -> u64 {
    /// Bits 12 to 0 of a large page's entry: flags, with PAT in bit 12.
    const LARGE_PAGE_FLAGS: u64 = (1 << 13) - 1;
    match (level, level.page(word)) {
        (Level::Pml4, _) => Entry::HUGE_PAGE.bits(),
        // R/W, U/S and bits 8 to 5; and what is NX elsewhere.
        (Level::PaePdpt, _) => 0b1_1110_0110 | Entry::NO_EXECUTE.bits(),
        // Behind the eight address bits of PSE-36.
        (Level::Pd32, Some(_)) => 1 << 21,
        (Level::Pdpt | Level::Pd | Level::PaePd, Some(page)) => (page.bytes() - 1) & !LARGE_PAGE_FLAGS,
        _ => 0,
    }
}

/// Whether `gva` is an address at all: canonical in 64-bit mode, of 32 bits elsewhere.
#[inline]
fn is_translated(paging: Paging, gva: Gva) -> bool {
    match paging {
        Paging::FourLevels => is_canonical(gva),
        Paging::Bits32 { .. } | Paging::Pae => gva.0 >> 32 == 0,
    }
}

/// Whether bits 63 to 47 are all equal (Intel SDM vol. 1, 3.3.7.1).
pub(crate) fn is_canonical(gva: Gva) -> bool {
    let upper = gva.0.cast_signed() >> 47;
    upper == 0 || upper == -1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory that holds just these words.
    fn memory(words: &[(u64, u64)]) -> impl Fn(Gpa) -> Option<u64> {
        let words = words.to_vec();
        move |gpa| Some(words.iter().find(|(own, _)| *own == gpa.0).map_or(0, |(_, word)| *word))
    }

    #[test]
    fn rights_are_those_that_every_level_grants() {
        let read = memory(&[(0x1000, 0x2007), (0x2000, 0x3005), (0x3000, 0x4007), (0x4008, 0x9003)]);
        let mapping = walk(0x1000, Gva(0x1234), read).expect("mapped");
        assert_eq!(mapping.gpa, Gpa(0x9234));
        assert!(!mapping.writable, "the second level grants no writing");
        assert!(!mapping.user, "the last level grants no user mode");
        assert!(mapping.executable);
    }

    #[test]
    fn a_large_page_with_a_bit_below_its_address_is_reserved() {
        let read = memory(&[(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x20_2083)]);
        assert_eq!(walk(0x1000, Gva(0), read), Err(WalkError::ReservedBit(Gpa(0x3000))));
        let read = memory(&[(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x20_0083)]);
        assert_eq!(walk(0x1000, Gva(0x12_3456), read).map(|mapping| mapping.gpa), Ok(Gpa(0x32_3456)));
    }

    #[test]
    fn the_end_of_a_walk_names_the_entry() {
        assert_eq!(walk(0x1000, Gva(0), memory(&[])), Err(WalkError::NotPresent(Gpa(0x1000))));
        assert_eq!(walk(0x1000, Gva(1 << 47), memory(&[])), Err(WalkError::NonCanonical));
        let top = walk(0x1000, Gva(u64::MAX), memory(&[]));
        assert_eq!(top, Err(WalkError::NotPresent(Gpa(0x1FF8))));
        assert_eq!(walk(0x1000, Gva(0), |_| None), Err(WalkError::TableOutsideRam(Gpa(0x1000))));
    }
}
