//! Which pages of guest RAM the host has ever given, and which of them are a machine's own.
//!
//! RAM is reserved, not allocated ([`memory`](crate::memory)). Whoever reads all of a 64 GiB guest makes the host fill
//! 128 MiB of page tables with its one page of zeros. Linux tells of each page of a process, in eight bytes of
//! /proc/self/pagemap, whether it has one (Linux Documentation/admin-guide/mm/pagemap.rst): asking takes no page.
//!
//! A machine whose RAM started as a snapshot's maps that privately, and shares its pages until somebody writes to one: then
//! the machine has a copy. Linux tells the two apart, and since 6.7 it tells of many pages at once (PAGEMAP_SCAN): of
//! 16 MiB in three microseconds, where the file's eight bytes a page take fourteen.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use vmm_sys_util::ioctl::{_IOC_READ, _IOC_WRITE, ioctl_expr, ioctl_with_mut_ref};

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

impl Extent {
    /// Whether the byte at `gpa` is one of it.
    #[must_use]
    pub fn contains(&self, gpa: Gpa) -> bool {
        self.start <= gpa && gpa < self.end
    }

    /// Whether what begins at `start`, and not before this, is told with it: it lies less than `gap` bytes behind, or touches.
    pub(crate) fn reaches(&self, start: Gpa, gap: u64) -> bool {
        start.0 < self.end.0.saturating_add(gap.max(1))
    }
}

/// What tells of the pages of this process.
///
/// # Errors
/// When there is no /proc.
pub(crate) fn pagemap() -> io::Result<File> {
    File::open("/proc/self/pagemap")
}

/// The parts of `memory` that may hold anything but zeros, lowest first. Parts that lie less than `gap` bytes apart are
/// told as one. Where the host does not tell (no /proc), that is all of it.
#[must_use]
pub fn extents(memory: &GuestMemory, gap: u64) -> Vec<Extent> {
    let asked = pagemap().and_then(|pagemap| ask(&pagemap, memory, gap, is_there));
    let Ok(mut told) = asked else { return all(memory) };
    told.extend_from_slice(&memory.parts_of_program());
    told.sort_by_key(|extent| extent.start);
    told.dedup_by(|next, last| {
        let is_near = last.reaches(next.start, gap);
        if is_near {
            last.end = last.end.max(next.end);
        }
        is_near
    });
    told
}

/// The pages of `memory` that are its own by now, and not those of a file that it started as. Where the host does not tell, all
/// may be.
pub(crate) fn private(memory: &GuestMemory, pagemap: Option<&File>) -> Vec<Extent> {
    let Some(pagemap) = pagemap else { return all(memory) };
    let told = scan(pagemap, memory).or_else(|_| ask(pagemap, memory, 0, is_private));
    told.unwrap_or_else(|_| all(memory))
}

fn all(memory: &GuestMemory) -> Vec<Extent> {
    memory.slots().map(|slot| Extent { start: slot.gpa, end: Gpa(slot.gpa.0 + slot.size) }).collect()
}

fn ask(
    pagemap: &File,
    memory: &GuestMemory,
    gap: u64,
    is_wanted: fn(&[u8]) -> bool,
) -> io::Result<Vec<Extent>> {
    let mut found = Found { extents: Vec::new(), gap };
    for slot in memory.slots() {
        ask_slot(pagemap, slot, is_wanted, &mut found)?;
    }
    Ok(found.extents)
}

/// `struct pm_scan_arg` of include/uapi/linux/fs.h: what is asked of a range, and how far the answer has come.
#[repr(C)]
#[derive(Default)]
struct ScanArguments {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    regions: u64,
    region_count: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any_of: u64,
    return_mask: u64,
}

/// `struct page_region`: consecutive pages of one kind.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PageRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const PAGEMAP_SCAN: libc::c_ulong =
    ioctl_expr(_IOC_READ | _IOC_WRITE, b'f' as u32, 16, size_of::<ScanArguments>() as u32);
/// The page belongs to the file.
const PAGE_IS_FILE: u64 = 1 << 2;
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

/// Asks for all pages at once that are there and not the file's.
fn scan(pagemap: &File, memory: &GuestMemory) -> io::Result<Vec<Extent>> {
    let mut extents = Vec::new();
    let mut regions = [PageRegion::default(); 64];
    for slot in memory.slots() {
        let mut start = slot.hva;
        while start < slot.hva + slot.size {
            let mut arguments = ScanArguments {
                size: size_of::<ScanArguments>() as u64,
                start,
                end: slot.hva + slot.size,
                regions: regions.as_mut_ptr() as u64,
                region_count: regions.len() as u64,
                category_inverted: PAGE_IS_FILE,
                category_mask: PAGE_IS_FILE,
                category_any_of: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
                return_mask: PAGE_IS_PRESENT,
                ..ScanArguments::default()
            };
            // SAFETY: The kernel writes as many regions as there are, and where it stopped; it changes no page.
            let count = unsafe { ioctl_with_mut_ref(pagemap, PAGEMAP_SCAN, &mut arguments) };
            let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
            extents.extend(regions.iter().take(count).map(|region| Extent {
                start: Gpa(slot.gpa.0 + (region.start - slot.hva)),
                end: Gpa(slot.gpa.0 + (region.end - slot.hva)),
            }));
            if arguments.walk_end <= start {
                return Err(io::Error::other("PAGEMAP_SCAN stands still"));
            }
            start = arguments.walk_end;
        }
    }
    Ok(extents)
}

/// Bytes of pagemap read at once: they tell of 128 MiB.
const CHUNK: usize = 256 << 10;
/// Bytes compared with zeros at once: they tell of 2 MiB, and most are zeros.
const GROUP: usize = 4 << 10;
static NONE: [u8; GROUP] = [0; GROUP];

fn ask_slot(
    pagemap: &File,
    slot: MemorySlot,
    is_wanted: fn(&[u8]) -> bool,
    found: &mut Found,
) -> io::Result<()> {
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
                if is_wanted(entry) {
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

/// Bit 61: the page is the file's.
fn is_private(entry: &[u8]) -> bool {
    is_there(entry) && entry.last().is_some_and(|highest| highest & 0b0010_0000 == 0)
}

/// What has been found so far.
struct Found {
    extents: Vec<Extent>,
    gap: u64,
}

impl Found {
    fn add(&mut self, page: Gpa) {
        let end = Gpa(page.0 + PAGE_SIZE);
        match self.extents.last_mut().filter(|last| last.reaches(page, self.gap)) {
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
    fn both_ways_to_ask_tell_of_the_pages_that_were_written() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(16 << 20).expect("a file of holes");
        let memory = GuestMemory::map(&file, "16M".parse().expect("a size")).expect("address space");
        let written = [0x5000, 0x6000, (16 << 20) - 0x1000].map(Gpa);
        written.iter().for_each(|gpa| memory.write(*gpa, &[1]).expect("RAM"));
        memory.read(Gpa(0x9000), &mut [0; 4096]).expect("RAM");

        let pagemap = pagemap().expect("/proc is there");
        let asked = ask(&pagemap, &memory, 0, is_private).expect("it can be read");

        let expected =
            [(0x5000, 0x7000), ((16 << 20) - 0x1000, 16 << 20)].map(|(start, end)| (Gpa(start), Gpa(end)));
        assert_eq!(asked.iter().map(|extent| (extent.start, extent.end)).collect::<Vec<_>>(), expected);
        // Kernels before 6.7 do not know it.
        if let Ok(scanned) = scan(&pagemap, &memory) {
            assert_eq!(scanned, asked);
        }
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
