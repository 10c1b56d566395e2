//! Which pages of guest RAM the host has ever given: all others read as zero, and reading them would cost.
//!
//! RAM is reserved, not allocated ([`memory`](crate::memory)). Whoever reads all of a 64 GiB guest makes the host fill
//! 128 MiB of page tables with its one page of zeros. Linux tells of each page of a process, in eight bytes of
//! /proc/self/pagemap, whether it has one (Linux Documentation/admin-guide/mm/pagemap.rst): asking takes no page.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;

use crate::memory::{GuestMemory, MemorySlot};

/// Consecutive pages of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first byte.
    pub start: Gpa,
    /// Behind the last byte.
    pub end: Gpa,
}

/// The parts of `memory` that may hold anything but zeros, lowest first. Parts that lie less than `gap` bytes apart are
/// told as one. Where the host does not tell (no /proc), that is all of it.
#[must_use]
pub fn extents(memory: &GuestMemory, gap: u64) -> Vec<Extent> {
    let asked = File::open("/proc/self/pagemap").and_then(|pagemap| ask(&pagemap, memory, gap));
    asked.unwrap_or_else(|_| {
        memory.slots().map(|slot| Extent { start: slot.gpa, end: Gpa(slot.gpa.0 + slot.size) }).collect()
    })
}

fn ask(pagemap: &File, memory: &GuestMemory, gap: u64) -> io::Result<Vec<Extent>> {
    let mut found = Found { extents: Vec::new(), gap };
    for slot in memory.slots() {
        ask_slot(pagemap, slot, &mut found)?;
    }
    Ok(found.extents)
}

/// Bytes of pagemap read at once: they tell of 128 MiB.
const CHUNK: usize = 256 << 10;
/// Bytes compared with zeros at once: they tell of 2 MiB, and most are zeros.
const GROUP: usize = 4 << 10;
static NONE: [u8; GROUP] = [0; GROUP];

fn ask_slot(pagemap: &File, slot: MemorySlot, found: &mut Found) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let size = slot.size / PAGE_SIZE * ENTRY_SIZE;
    let mut done = 0;
    while done < size {
        let part = buffer.get_mut(..(size - done).min(CHUNK as u64) as usize).expect("at most a chunk");
        pagemap.read_exact_at(part, slot.hva / PAGE_SIZE * ENTRY_SIZE + done)?;
        for (group, entries) in (0..).zip(part.chunks(GROUP)) {
            if NONE.get(..entries.len()) == Some(entries) {
                continue;
            }
            let first =
                Gpa(slot.gpa.0 + (done / ENTRY_SIZE + group * (GROUP as u64 / ENTRY_SIZE)) * PAGE_SIZE);
            for (page, entry) in (0..).zip(entries.chunks_exact(ENTRY_SIZE as usize)) {
                if is_there(entry) {
                    found.add(Gpa(first.0 + page * PAGE_SIZE));
                }
            }
        }
        done += part.len() as u64;
    }
    Ok(())
}

const ENTRY_SIZE: u64 = 8;

/// Bit 63: the page is in RAM of the host; bit 62: it is in swap.
fn is_there(entry: &[u8]) -> bool {
    entry.last().is_some_and(|highest| highest & 0b1100_0000 != 0)
}

/// What has been found so far.
struct Found {
    extents: Vec<Extent>,
    gap: u64,
}

impl Found {
    fn add(&mut self, page: Gpa) {
        let end = Gpa(page.0 + PAGE_SIZE);
        match self.extents.last_mut().filter(|last| page.0 - last.end.0 < self.gap.max(1)) {
            Some(last) => last.end = end,
            None => self.extents.push(Extent { start: page, end }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Backing;

    #[test]
    fn in_64_gib_only_what_was_written_is_told_of() {
        let size = "64G".parse().expect("a valid size");
        let memory = GuestMemory::allocate(size, Backing::default()).expect("address space");
        let written = [0x5000, 0x7FFC, (3 << 30) - 1, 4 << 30, 40 << 30].map(Gpa);
        for gpa in written {
            memory.write(gpa, &[1]).expect("RAM");
        }

        let extents = extents(&memory, 0);

        for gpa in written {
            assert!(extents.iter().any(|extent| extent.start <= gpa && gpa < extent.end), "{gpa}");
        }
        let told: u64 = extents.iter().map(|extent| extent.end.0 - extent.start.0).sum();
        assert!(told <= written.len() as u64 * (2 << 20), "a host may give 2 MiB at a time: {extents:?}");
    }

    #[test]
    fn pages_less_than_the_gap_apart_are_one_extent() {
        let extents = |gap| {
            let mut found = Found { extents: Vec::new(), gap };
            [0x5000, 0x6000, 0x8000].into_iter().for_each(|page| found.add(Gpa(page)));
            found.extents.iter().map(|extent| (extent.start.0, extent.end.0)).collect::<Vec<_>>()
        };
        assert_eq!(extents(0), [(0x5000, 0x7000), (0x8000, 0x9000)]);
        assert_eq!(extents(0x1000), [(0x5000, 0x7000), (0x8000, 0x9000)]);
        assert_eq!(extents(0x1001), [(0x5000, 0x9000)]);
    }
}
