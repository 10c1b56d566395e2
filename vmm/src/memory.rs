//! Guest RAM: one anonymous mapping of the VMM's own address space, read and written by `Gpa` with every bound
//! checked.
//!
//! The host reserves all of RAM with a single `mmap(MAP_NORESERVE)`. Reserving costs the same for 2 MiB and 64 GiB:
//! the host kernel gives real pages one by one, when they are first touched. The mapping is cut into at most two
//! regions, below and above the device hole ([`shared_abi::layout`]); each becomes one memory slot of KVM, and then
//! guest-physical address `gpa` and host-virtual address [`GuestMemory::hva`]`(gpa)` are the same byte.
//!
//! RAM may also start as that of a snapshot: then the same range maps `FrozenRam`, privately, and a page becomes this
//! machine's own when somebody first writes to it.
//!
//! Mapping and unmapping are `unsafe`, and so is the promise that regions stay mapped; it is kept here.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::process;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared_abi::boot_info::{RamRegion, ram_regions};
use shared_abi::{Gpa, layout};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    VolatileSlice,
};

use crate::config::{Backing, MemorySize, PageSize};
use crate::error::{Error, Result};
use crate::frozen::FrozenRam;
use crate::origin::Origin;
use crate::touched::{self, Extent};

/// RAM of one machine.
#[derive(Debug)]
pub struct GuestMemory {
    // Dropped first: it points into `reservation`.
    regions: GuestMemoryMmap<()>,
    reservation: Reservation,
    size: MemorySize,
    backing: Backing,
    allocated_at: Origin,
    /// What the pages hold that nobody has written to; `None` for zeros.
    base: Mutex<Option<Arc<FrozenRam>>>,
}

/// Bytes that a guest named but that are not all RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{size} bytes at GPA {gpa} are not all RAM")]
pub struct OutsideRam {
    /// The first byte asked for.
    pub gpa: Gpa,
    /// How many bytes were asked for.
    pub size: u64,
}

/// A region of RAM as KVM is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySlot {
    /// Where the guest sees it.
    pub gpa: Gpa,
    /// Where the VMM sees it: a host-virtual address.
    pub hva: u64,
    /// Size in bytes.
    pub size: u64,
}

impl GuestMemory {
    /// Reserves `size` bytes of RAM, all zero.
    ///
    /// # Errors
    /// [`Error::Memory`] when the host has no address space left or refuses the advice asked for.
    #[track_caller]
    pub fn allocate(size: MemorySize, backing: Backing) -> Result<Self> {
        let allocated_at = Origin::here();
        let failed = |action| move |source| Error::Memory { action, size, source };
        let alignment = if backing.huge { PageSize::Size2M } else { PageSize::Size4K };
        let reservation =
            Reservation::new(size.bytes(), alignment).map_err(failed("reserve address space of"))?;
        if backing.mergeable {
            reservation.advise(libc::MADV_MERGEABLE).map_err(failed("let KSM merge the"))?;
        }
        if backing.huge {
            reservation.advise(libc::MADV_HUGEPAGE).map_err(failed("get huge pages for the"))?;
        }
        let regions = reservation.cut(ram_regions(size.bytes())).map_err(failed("map"))?;
        Ok(Self { regions, reservation, size, backing, allocated_at, base: Mutex::default() })
    }

    /// Maps `size` bytes of RAM that start as `file` has them, which never changes; what is written stays private.
    ///
    /// # Errors
    /// [`Error::Memory`].
    #[track_caller]
    pub(crate) fn map(file: &File, size: MemorySize) -> Result<Self> {
        let allocated_at = Origin::here();
        let failed = |action| move |source| Error::Memory { action, size, source };
        let reservation = Reservation::of_file(file, size.bytes()).map_err(failed("map a snapshot of"))?;
        let regions = reservation.cut(ram_regions(size.bytes())).map_err(failed("map"))?;
        let (backing, base) = (Backing::default(), Mutex::default());
        Ok(Self { regions, reservation, size, backing, allocated_at, base })
    }

    /// Maps RAM that starts as `frozen`.
    ///
    /// # Errors
    /// [`Error::Memory`].
    #[track_caller]
    pub(crate) fn of_frozen(frozen: &Arc<FrozenRam>) -> Result<Self> {
        let memory = Self::map(frozen.file(), frozen.size())?;
        *memory.base() = Some(Arc::clone(frozen));
        Ok(memory)
    }

    /// Makes this RAM be `frozen`, at the same addresses, whatever it was before. KVM notices.
    ///
    /// # Errors
    /// [`Error::Memory`]; RAM may be zeros then.
    pub(crate) fn become_frozen(&self, frozen: &Arc<FrozenRam>) -> Result<()> {
        let failed = |action| move |source| Error::Memory { action, size: self.size, source };
        self.reservation.replace(frozen.file()).map_err(failed("map a snapshot of"))?;
        *self.base() = Some(Arc::clone(frozen));
        if self.backing.mergeable {
            self.reservation.advise(libc::MADV_MERGEABLE).map_err(failed("let KSM merge the"))?;
        }
        Ok(())
    }

    /// What this RAM started as, if not as zeros.
    pub(crate) fn frozen(&self) -> Option<Arc<FrozenRam>> {
        self.base().clone()
    }

    /// Makes this RAM be `frozen` again, which it started as: pages written to since are copied back. Nobody need have kept
    /// a list of them, for the host's kernel has one: they are those that are private. So no writer is forgotten, neither
    /// guest nor host nor KVM. They stay private, because to fault one in again takes forty times as long as a copy; when
    /// they are very many they are dropped.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn revert(&self, frozen: &FrozenRam) -> Result<()> {
        let failed = |action| move |source| Error::Memory { action, size: self.size, source };
        let pages = self.private_pages(frozen);
        let bytes: u64 = pages.iter().map(|extent| extent.end.0 - extent.start.0).sum();
        if bytes > MAX_COPIED {
            return self.reservation.advise(libc::MADV_DONTNEED).map_err(failed("take back the"));
        }
        for Extent { start, end } in pages {
            let size = end.0 - start.0;
            let both = frozen.view().slice(start, size).and_then(|from| Ok((from, self.slice(start, size)?)));
            let (from, to) = both.map_err(|outside| failed("restore the")(io::Error::other(outside)))?;
            from.copy_to_volatile_slice(to);
        }
        Ok(())
    }

    /// Bytes of RAM that are this machine's own: what it or the host has written to, of what it shares with others; of RAM
    /// that started as zeros, what was ever touched.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        let pages = match self.frozen() {
            Some(frozen) => self.private_pages(&frozen),
            None => touched::extents(self, 0),
        };
        pages.iter().map(|extent| extent.end.0 - extent.start.0).sum()
    }

    /// The pages that are this machine's own, of RAM that started as `frozen`.
    pub(crate) fn private_pages(&self, frozen: &FrozenRam) -> Vec<Extent> {
        touched::private(self, frozen.pagemap())
    }

    /// Where the byte at `gpa` lies in a file that holds all RAM, one region behind the other.
    pub(crate) fn offset(&self, gpa: Gpa) -> Option<u64> {
        Some(self.hva(gpa)? - self.reservation.start.as_ptr() as u64)
    }

    fn base(&self) -> MutexGuard<'_, Option<Arc<FrozenRam>>> {
        self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Size of all RAM.
    #[must_use]
    pub fn size(&self) -> MemorySize {
        self.size
    }

    /// The line that asked for this memory.
    #[must_use]
    pub fn allocated_at(&self) -> Origin {
        self.allocated_at
    }

    /// The line that mapped it.
    #[must_use]
    pub fn mapped_at(&self) -> Origin {
        self.reservation.mapped_at
    }

    /// The regions of RAM, lowest first.
    pub fn slots(&self) -> impl Iterator<Item = MemorySlot> + '_ {
        self.regions.iter().map(|region| MemorySlot {
            gpa: Gpa(region.start_addr().0),
            hva: region.as_ptr() as u64,
            size: region.len(),
        })
    }

    /// Copies `bytes` into RAM at `gpa`.
    ///
    /// # Errors
    /// [`OutsideRam`], and then nothing is written.
    pub fn write(&self, gpa: Gpa, bytes: &[u8]) -> std::result::Result<(), OutsideRam> {
        self.check(gpa, bytes.len() as u64)?;
        self.regions
            .write_slice(bytes, GuestAddress(gpa.0))
            .map_err(|_| OutsideRam { gpa, size: bytes.len() as u64 })
    }

    /// Has the host give the pages of `gpa..gpa + size` at once: they are about to be written, and each would be a page
    /// fault. Where they fill huge pages it may give those (THP), which takes a third of the time. A kernel before Linux
    /// 5.14 does not know the advice, and gives them one by one.
    pub(crate) fn populate(&self, gpa: Gpa, size: u64) {
        const HUGE: u64 = PageSize::Size2M.bytes();
        let Some(hva) = self.check(gpa, size).ok().and_then(|()| self.hva(gpa)) else { return };
        let advise = |start: u64, end: u64, advice| {
            // SAFETY: The range is RAM, so it is mapped and ours. No byte of it changes.
            unsafe { libc::madvise(start as *mut libc::c_void, (end - start) as usize, advice) };
        };
        let (start, end) = (hva.next_multiple_of(HUGE), (hva + size) / HUGE * HUGE);
        if start < end {
            advise(start, end, libc::MADV_HUGEPAGE);
        }
        advise(hva, hva + size, libc::MADV_POPULATE_WRITE);
    }

    /// Copies RAM at `gpa` into `bytes`.
    ///
    /// # Errors
    /// [`OutsideRam`], and then nothing is read.
    pub fn read(&self, gpa: Gpa, bytes: &mut [u8]) -> std::result::Result<(), OutsideRam> {
        let size = bytes.len() as u64;
        self.check(gpa, size)?;
        self.regions.read_slice(bytes, GuestAddress(gpa.0)).map_err(|_| OutsideRam { gpa, size })
    }

    /// Reads the aligned 64-bit word at `gpa`, such as a page-table entry, in one access: another CPU may write it.
    ///
    /// # Errors
    /// [`OutsideRam`], also when `gpa` is no multiple of 8.
    pub fn read_u64(&self, gpa: Gpa) -> std::result::Result<u64, OutsideRam> {
        let word = self.regions.load::<u64>(GuestAddress(gpa.0), Ordering::Relaxed);
        word.map(u64::from_le).map_err(|_| OutsideRam { gpa, size: 8 })
    }

    /// Reads the aligned word at `gpa`; what the guest stored before that word is seen by later reads.
    ///
    /// # Errors
    /// [`OutsideRam`].
    pub(crate) fn load_u64(&self, gpa: Gpa) -> std::result::Result<u64, OutsideRam> {
        let word = self.regions.load::<u64>(GuestAddress(gpa.0), Ordering::Acquire);
        word.map(u64::from_le).map_err(|_| OutsideRam { gpa, size: 8 })
    }

    /// Stores the aligned word at `gpa`; a guest that sees it knows that earlier reads are done.
    ///
    /// # Errors
    /// [`OutsideRam`].
    pub(crate) fn store_u64(&self, gpa: Gpa, word: u64) -> std::result::Result<(), OutsideRam> {
        self.regions
            .store(word.to_le(), GuestAddress(gpa.0), Ordering::Release)
            .map_err(|_| OutsideRam { gpa, size: 8 })
    }

    /// The RAM itself, for system calls that read or write it without a copy.
    ///
    /// # Errors
    /// [`OutsideRam`].
    pub(crate) fn slice(&self, gpa: Gpa, size: u64) -> std::result::Result<VolatileSlice<'_>, OutsideRam> {
        self.check(gpa, size)?;
        self.regions.get_slice(GuestAddress(gpa.0), size as usize).map_err(|_| OutsideRam { gpa, size })
    }

    /// Where the byte at `gpa` lies in the VMM's own address space; `None` outside RAM.
    #[must_use]
    pub fn hva(&self, gpa: Gpa) -> Option<u64> {
        self.regions.get_host_address(GuestAddress(gpa.0)).ok().map(|pointer| pointer as u64)
    }

    /// Checks that all of `gpa..gpa + size` is RAM.
    ///
    /// # Errors
    /// [`OutsideRam`] when some of it is not.
    pub fn check(&self, gpa: Gpa, size: u64) -> std::result::Result<(), OutsideRam> {
        let inside = gpa
            .checked_add(size)
            .is_some_and(|end| self.slots().any(|slot| slot.gpa <= gpa && end.0 <= slot.gpa.0 + slot.size));
        if inside { Ok(()) } else { Err(OutsideRam { gpa, size }) }
    }

    /// The same memory as the rust-vmm crates know it.
    pub(crate) fn as_vm_memory(&self) -> &GuestMemoryMmap<()> {
        &self.regions
    }
}

/// A range of the VMM's address space that it owns.
#[derive(Debug)]
struct Reservation {
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
    fn new(size: u64, alignment: PageSize) -> io::Result<Self> {
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
    fn of_file(file: &File, size: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: A new private mapping at an address the kernel chooses touches no existing memory.
        let (pointer, mapped_at) =
            Origin::of(unsafe { libc::mmap(ptr::null_mut(), size, RAM, FILE_FLAGS, file.as_raw_fd(), 0) });
        Ok(Self { start: mapped(pointer)?, size, mapped_at })
    }

    /// Maps `file` in the place of what is mapped here; after a failure there may be zeros.
    fn replace(&self, file: &File) -> io::Result<()> {
        let at = |flags, fd| {
            // SAFETY: The range is mapped and ours, and stays mapped: whoever points into it finds other bytes there, as
            // RAM may hold at any time. No Rust reference into it exists; it is read and written through raw pointers.
            unsafe { libc::mmap(self.start.as_ptr().cast(), self.size, RAM, flags | libc::MAP_FIXED, fd, 0) }
        };
        if at(FILE_FLAGS, file.as_raw_fd()) != libc::MAP_FAILED {
            return Ok(());
        }
        let failure = io::Error::last_os_error();
        // The old mapping may be gone, and this file has promised one to everybody who points into it.
        if at(MAP_FLAGS, -1) == libc::MAP_FAILED {
            process::abort();
        }
        Err(failure)
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: The range is mapped and ours, and stays mapped. MADV_DONTNEED changes contents, as a guest may do at
        // any time; the other advices used change none.
        let result = unsafe { libc::madvise(self.start.as_ptr().cast(), self.size, advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Cuts the range into the non-empty `regions`, one behind the other.
    fn cut(&self, regions: [RamRegion; 2]) -> io::Result<GuestMemoryMmap<()>> {
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
        // SAFETY: `new` mapped exactly this range. The regions that point into it are gone: `GuestMemory` drops
        // them first, and the VM that has it as a memory slot is closed before (`Machine` drops it first).
        unsafe { unmap(self.start, self.size) };
    }
}

/// What the VMM may do with RAM.
const RAM: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
const MAP_FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
/// RAM that starts as a file.
const FILE_FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_NORESERVE;
/// Bytes that are copied back at most: it takes a millisecond or two.
const MAX_COPIED: u64 = 32 << 20;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(size: &str) -> GuestMemory {
        let size = size.parse().expect("a valid size");
        GuestMemory::allocate(size, Backing::default()).expect("address space")
    }

    #[test]
    fn bytes_written_are_read_back_and_the_end_of_ram_is_the_end() {
        let memory = memory("2M");
        let end = Gpa(2 << 20);

        memory.write(Gpa(end.0 - 4), &[1, 2, 3, 4]).expect("the last four bytes are RAM");
        let mut read = [0; 4];
        memory.read(Gpa(end.0 - 4), &mut read).expect("the last four bytes are RAM");
        assert_eq!(read, [1, 2, 3, 4]);

        assert_eq!(memory.write(Gpa(end.0 - 3), &[0; 4]), Err(OutsideRam { gpa: Gpa(end.0 - 3), size: 4 }));
        assert!(memory.read(Gpa(u64::MAX - 1), &mut read).is_err());
        memory.read(Gpa(end.0 - 4), &mut read).expect("unchanged");
        assert_eq!(read, [1, 2, 3, 4]);
    }

    #[test]
    fn sixty_four_gib_leave_a_hole_below_four() {
        let memory = memory("64G");
        let slots: Vec<_> = memory.slots().map(|slot| (slot.gpa.0, slot.size)).collect();
        assert_eq!(slots, [(0, 3 << 30), (4 << 30, 61 << 30)]);
        assert!(memory.hva(Gpa(0xC000_0000)).is_none());
        assert!(memory.check(Gpa(0xBFFF_FFFF), 2).is_err());
        memory.write(Gpa((65 << 30) - 1), &[7]).expect("the last byte is RAM");
    }

    #[test]
    fn huge_backing_is_aligned_to_two_mib() {
        let backing = Backing { huge: true, mergeable: false };
        let size = "6M".parse().expect("a valid size");
        let memory = GuestMemory::allocate(size, backing).expect("a host kernel with transparent huge pages");
        assert_eq!(memory.hva(Gpa(0)).expect("RAM") % (2 << 20), 0);
    }
}
