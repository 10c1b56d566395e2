//! Page directories that no machine need write, for every machine has the same: those of free RAM above the device hole, in
//! pages of 2 MiB.
//!
//! A machine of 64 GiB has 61 of them, and to have the host give so many pages takes longer than all else that it takes more
//! than one of 2 MiB. They are constants of this program, which guest RAM may map
//! ([`write_or_map`](crate::memory::GuestMemory::write_or_map)).

use shared_abi::layout;

use super::{ENTRIES, Entry};
use crate::config::PageSize;

/// A page table.
pub(super) type Table = [u64; ENTRIES];

/// Bytes that a page directory maps.
const REACH: u64 = PageSize::Size1G.bytes();
/// How free RAM is mapped: to read and write.
pub(super) const RIGHTS: Entry = Entry::PRESENT.union(Entry::WRITABLE).union(Entry::NO_EXECUTE);

/// As guest RAM: a page each, at the start of one.
#[repr(C, align(4096))]
struct Tables([Table; COUNT]);

/// One for each GiB of the largest machine that lies above the device hole. Below are other things, and two such tables at most.
const COUNT: usize = ((layout::MAX_RAM_SIZE - layout::LOW_RAM_MAX_END.0) / REACH) as usize;

static TABLES: Tables = Tables(all());

const fn all() -> [Table; COUNT] {
    let mut tables = [[0; ENTRIES]; COUNT];
    let mut index = 0;
    while index < COUNT {
        let start = layout::HIGH_RAM.0 + REACH * index as u64;
        let mut page = 0;
        while page < ENTRIES {
            let bits = RIGHTS.union(Entry::HUGE_PAGE).bits();
            tables[index][page] = (start + page as u64 * PageSize::Size2M.bytes()) | bits;
            page += 1;
        }
        index += 1;
    }
    tables
}

/// The tables of as much of `start..end` as there are any for, from `start` on.
pub(super) fn of(start: u64, end: u64) -> &'static [Table] {
    let Some(offset) = start.checked_sub(layout::HIGH_RAM.0).filter(|offset| offset.is_multiple_of(REACH))
    else {
        return &[];
    };
    let (first, wanted) = ((offset / REACH) as usize, ((end - start) / REACH) as usize);
    TABLES.0.get(first..COUNT.min(first + wanted)).unwrap_or_default()
}
