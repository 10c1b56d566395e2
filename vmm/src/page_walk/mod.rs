//! The page walk: how a CPU in 64-bit mode translates a virtual address, step by step.
//!
//! Pure: it reads guest memory through a function and so works on tables that the host built, that the guest built, or
//! that a test made up. It follows the Intel SDM vol. 3A, 4.5, with four levels; the format of the entries is drawn in
//! [`boot::page_tables`](crate::boot::page_tables). Unlike a CPU it sets no accessed and dirty bits.
//!
//! [`Walker`] is for those who need the answer, often; [`trace`] keeps every step for those who ask why. All that tables
//! map is found by [`explain::scan`](crate::explain::scan).

mod trace;

pub use trace::{Level, WalkStep, WalkTrace, trace};

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
    /// Bits 63 to 47 of the address are not all equal.
    NonCanonical,
    /// The entry at this address is not present.
    NotPresent(Gpa),
    /// The entry at this address has a bit set that must be 0.
    ReservedBit(Gpa),
    /// The entry at this address is not in RAM.
    TableOutsideRam(Gpa),
}

/// How the levels cut a virtual address: the lowest bit of each index, top level first.
const INDEX_SHIFTS: [u32; 4] = [39, 30, 21, PT_SHIFT];
/// The last level alone.
const LAST_SHIFT: [u32; 1] = [PT_SHIFT];
const PT_SHIFT: u32 = 12;
/// A table of the last level translates addresses that differ in these lower bits.
const LAST_TABLE_BITS: u32 = 21;

/// Bits 51 to 12: the address in an entry.
const ADDRESS_MASK: u64 = 0x000F_FFFF_FFFF_F000;

/// Translates `gva` with the tables that CR3 points to; `read` gives the 64-bit word at a GPA, or `None` outside RAM.
///
/// # Errors
/// Where and why the walk ends early.
pub fn walk(cr3: u64, gva: Gva, read: impl Fn(Gpa) -> Option<u64>) -> Result<Mapping, WalkError> {
    Walker::new(cr3).walk(gva, read)
}

/// Translates address after address, and remembers the last-level table that it met last: the next page's entry is
/// most often in the same one.
#[derive(Clone, Debug)]
pub struct Walker {
    cr3: u64,
    last: Option<LastTable>,
}

/// A table of the last level, and what led there.
#[derive(Clone, Copy, Debug)]
struct LastTable {
    /// The addresses it translates, without their lower 21 bits.
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

    fn and(self, entry: Entry) -> Self {
        Self {
            writable: self.writable && entry.contains(Entry::WRITABLE),
            executable: self.executable && !entry.contains(Entry::NO_EXECUTE),
            user: self.user && entry.contains(Entry::USER_ACCESSIBLE),
        }
    }
}

impl Walker {
    /// A walker of the tables that CR3 points to.
    #[must_use]
    pub fn new(cr3: u64) -> Self {
        Self { cr3, last: None }
    }

    /// Translates `gva`.
    ///
    /// # Errors
    /// Where and why the walk ends early.
    pub fn walk(&mut self, gva: Gva, read: impl Fn(Gpa) -> Option<u64>) -> Result<Mapping, WalkError> {
        if !is_canonical(gva) {
            return Err(WalkError::NonCanonical);
        }
        let prefix = gva.0 >> LAST_TABLE_BITS;
        let (mut table, mut rights, shifts) = match self.last.filter(|last| last.prefix == prefix) {
            Some(last) => (last.table, last.rights, &LAST_SHIFT[..]),
            None => (Gpa(self.cr3 & ADDRESS_MASK), Rights::ALL, &INDEX_SHIFTS[..]),
        };
        for &shift in shifts {
            if shift == PT_SHIFT {
                self.last = Some(LastTable { prefix, table, rights });
            }
            let entry_gpa = Gpa(table.0 + index(gva, shift) * 8);
            let word = read(entry_gpa).ok_or(WalkError::TableOutsideRam(entry_gpa))?;
            match follow(gva, shift, entry_gpa, word, rights)? {
                Leads::ToPage(mapping) => return Ok(mapping),
                Leads::ToTable(next, granted) => (table, rights) = (next, granted),
            }
        }
        unreachable!("an entry of the last level maps a page")
    }
}

/// Where a present entry leads.
enum Leads {
    ToTable(Gpa, Rights),
    ToPage(Mapping),
}

/// Which entry of the table whose indexes start at bit `shift` translates `gva`.
#[inline]
fn index(gva: Gva, shift: u32) -> u64 {
    gva.0 >> shift & 0x1FF
}

/// Where the entry `word` leads, behind levels that grant `rights`.
#[inline]
fn follow(gva: Gva, shift: u32, entry_gpa: Gpa, word: u64, rights: Rights) -> Result<Leads, WalkError> {
    let entry = Entry::from_bits_retain(word);
    if !entry.contains(Entry::PRESENT) {
        return Err(WalkError::NotPresent(entry_gpa));
    }
    let rights = rights.and(entry);
    if let Some(page_size) = page_at(shift, entry) {
        return page(gva, entry_gpa, word, page_size, rights).map(Leads::ToPage);
    }
    if entry.contains(Entry::HUGE_PAGE) {
        return Err(WalkError::ReservedBit(entry_gpa));
    }
    Ok(Leads::ToTable(Gpa(word & ADDRESS_MASK), rights))
}

/// What the entry of a page says about `gva`.
fn page(
    gva: Gva,
    entry_gpa: Gpa,
    word: u64,
    page_size: PageSize,
    rights: Rights,
) -> Result<Mapping, WalkError> {
    let offset_mask = page_size.bytes() - 1;
    // Bit 12 of a large page's entry is PAT; the bits between it and the page's address must be 0.
    if word & ADDRESS_MASK & offset_mask & !(1 << 12) != 0 && page_size != PageSize::Size4K {
        return Err(WalkError::ReservedBit(entry_gpa));
    }
    let gpa = Gpa((word & ADDRESS_MASK & !offset_mask) | (gva.0 & offset_mask));
    let Rights { writable, executable, user } = rights;
    Ok(Mapping { gpa, page_size, writable, executable, user })
}

/// The page that an entry of the level with this shift maps, if it maps one.
fn page_at(shift: u32, entry: Entry) -> Option<PageSize> {
    match (shift, entry.contains(Entry::HUGE_PAGE)) {
        (PT_SHIFT, _) => Some(PageSize::Size4K),
        (21, true) => Some(PageSize::Size2M),
        (30, true) => Some(PageSize::Size1G),
        _ => None,
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
