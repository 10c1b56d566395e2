//! `Reservation`: the range of the VMM's own address space that guest RAM lies in.
//!
//! It is anonymous memory, or a file mapped privately, or both side by side; what is mapped there may be replaced, but from its
//! start to its end there is always something. Mapping and unmapping are `unsafe`, and so is the promise that regions stay
//! mapped; it is kept here.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::process;
use std::ptr::{self, NonNull};

use shared_abi::boot_info::RamRegion;
use shared_abi::layout;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap};

use crate::config::PageSize;
use crate::origin::Origin;

/// A range of the VMM's address space that it owns.
#[derive(Debug)]
pub(crate) struct Reservation {
    start: NonNull<u8>,
    size: usize,
    mapped_at: Origin,
}

// SAFETY: A `Reservation` is an address range. Nothing in it is tied to the thread that mapped it.
unsafe impl Send for Reservation {}
// SAFETY: Through `&Reservation` nothing is read or written but its own two numbers.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Maps `size` bytes of zeroed memory at a multiple of `alignment`.
    pub(crate) fn new(size: u64, alignment: PageSize) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // mmap aligns to 4 KiB; for more, map more and give back what lies outside.
        let slack = match alignment {
            PageSize::Size4K => 0,
            larger => larger.bytes() as usize,
        };
        let mapped_size = size.checked_add(slack).ok_or(io::ErrorKind::OutOfMemory)?;
        let (mapped, mapped_at) = map_anonymous(mapped_size)?;
        let address = mapped.as_ptr() as usize;
        let skip = address.next_multiple_of(alignment.bytes() as usize) - address;
        // SAFETY: `skip <= slack` and `size + slack` bytes are mapped, so all three ranges lie in the mapping, and
        // nobody else knows of the two that are given back.
        let start = unsafe {
            let start = mapped.add(skip);
            unmap(mapped, skip);
            unmap(start.add(size), slack - skip);
            start
        };
        Ok(Self { start, size, mapped_at })
    }

    /// Maps the first `size` bytes of `file`, privately.
    pub(crate) fn of_file(file: &File, size: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: A new private mapping at an address the kernel chooses touches no existing memory.
        let (pointer, mapped_at) =
            Origin::of(unsafe { libc::mmap(ptr::null_mut(), size, RAM, FILE_FLAGS, file.as_raw_fd(), 0) });
        Ok(Self { start: mapped(pointer)?, size, mapped_at })
    }

    /// The line that mapped it.
    pub(crate) fn mapped_at(&self) -> Origin {
        self.mapped_at
    }

    /// The address of its first byte.
    pub(crate) fn hva(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// All of it, by distance from its first byte.
    pub(crate) fn whole(&self) -> Range<u64> {
        0..self.size as u64
    }

    /// Maps `file` from `file_offset` in the place of what is mapped in `range`, whole pages; after a failure there is what was
    /// there, or zeros.
    ///
    /// # Errors
    /// When the host refuses.
    ///
    /// # Panics
    /// When the range does not lie in here.
    pub(crate) fn replace(&self, range: Range<u64>, file: &File, file_offset: u64) -> io::Result<()> {
        let (start, size) = self.part(range.clone());
        let file_offset = file_offset.try_into().map_err(io::Error::other)?;
        let at = |flags, fd, file_offset| {
            // SAFETY: The part is mapped and ours, and stays mapped: whoever points into it finds other bytes there, as RAM may
            // hold at any time. No Rust reference into it exists; it is read and written through raw pointers.
            unsafe { libc::mmap(start, size, RAM, flags | libc::MAP_FIXED, fd, file_offset) }
        };
        if at(FILE_FLAGS, file.as_raw_fd(), file_offset) != libc::MAP_FAILED {
            return Ok(());
        }
        let failure = io::Error::last_os_error();
        // An advice that changes nothing is refused where nothing is mapped (madvise(2), ENOMEM).
        let is_mapped = self.advise(range, libc::MADV_NORMAL).is_ok();
        // This file has promised a mapping to everybody who points into it.
        if !is_mapped && at(MAP_FLAGS, -1, 0) == libc::MAP_FAILED {
            process::abort();
        }
        Err(failure)
    }

    /// Gives the host's kernel `advice` on `range` (madvise(2)).
    ///
    /// # Errors
    /// When the host does not take it.
    ///
    /// # Panics
    /// When the range does not lie in here.
    pub(crate) fn advise(&self, range: Range<u64>, advice: libc::c_int) -> io::Result<()> {
        let (start, size) = self.part(range);
        // SAFETY: The part is mapped and ours, and stays mapped. MADV_DONTNEED changes contents, as a guest may do at any time;
        // the other advices used change none.
        let result = unsafe { libc::madvise(start, size, advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Start and size of a part.
    fn part(&self, range: Range<u64>) -> (*mut libc::c_void, usize) {
        assert!(range.start <= range.end && range.end <= self.size as u64, "{range:?} of {:#x}", self.size);
        // SAFETY: The start lies in the range, or just behind it.
        let start = unsafe { self.start.as_ptr().add(range.start as usize) };
        (start.cast(), (range.end - range.start) as usize)
    }

    /// Cuts the range into the non-empty `regions`, one behind the other.
    pub(crate) fn cut(&self, regions: [RamRegion; 2]) -> io::Result<GuestMemoryMmap<()>> {
        let mut offset = 0;
        let mut parts = Vec::with_capacity(regions.len());
        for region in regions.iter().filter(|region| region.size() > 0) {
            let size = region.size() as usize;
            debug_assert!(offset + size <= self.size, "regions are not larger than RAM");
            // SAFETY: The range lies in this reservation, which `GuestMemory` drops after the regions; vm-memory
            // neither unmaps nor moves a raw mapping.
            let part = unsafe {
                MmapRegionBuilder::new(size)
                    .with_mmap_prot(RAM)
                    .with_mmap_flags(MAP_FLAGS)
                    .with_raw_mmap_pointer(self.start.as_ptr().add(offset))
            }
            .build()
            .map_err(io::Error::other)?;
            let part = GuestRegionMmap::new(part, GuestAddress(region.start))
                .expect("RAM ends far below 2^64, see layout::MAX_RAM_SIZE");
            parts.push(part);
            offset += size;
        }
        GuestMemoryMmap::from_regions(parts).map_err(io::Error::other)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: The range is mapped, by this file, and nothing else lies in it. The regions that point into it are gone:
        // `GuestMemory` drops them first, and the VM that has it as a memory slot is closed before (`Machine` drops it first).
        unsafe { unmap(self.start, self.size) };
    }
}

/// What the VMM may do with RAM.
const RAM: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
const MAP_FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
/// RAM that starts as a file.
const FILE_FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_NORESERVE;

/// Maps `size` bytes somewhere, and says which line did.
fn map_anonymous(size: usize) -> io::Result<(NonNull<u8>, Origin)> {
    // SAFETY: A new anonymous mapping at an address the kernel chooses touches no existing memory.
    let (pointer, origin) = Origin::of(unsafe { libc::mmap(ptr::null_mut(), size, RAM, MAP_FLAGS, -1, 0) });
    Ok((mapped(pointer)?, origin))
}

/// What mmap gave, or why nothing.
fn mapped(pointer: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    if pointer == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(pointer.cast()).expect("mmap gives no null pointer unless MAP_FIXED asks for it"))
}

/// Gives `size` bytes back; none when `size` is 0.
///
/// # Safety
/// 1. The range is mapped and was mapped by this file.
/// 2. Nothing points into it any more.
unsafe fn unmap(start: NonNull<u8>, size: usize) {
    if size > 0 {
        // SAFETY: See the caller's promise.
        let result = unsafe { libc::munmap(start.as_ptr().cast(), size) };
        debug_assert_eq!(result, 0, "munmap of an own range");
    }
}

const _: () = assert!(layout::MAX_RAM_SIZE <= usize::MAX as u64);
