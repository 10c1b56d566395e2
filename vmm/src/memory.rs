//! Guest RAM: one range of the VMM's own address space (`reservation.rs`), read and written by `Gpa` with
//! every bound checked.
//!
//! The host reserves all of RAM with a single `mmap(MAP_NORESERVE)`. Reserving costs the same for 2 MiB and 64 GiB:
//! the host kernel gives real pages one by one, when they are first touched. The mapping is cut into at most two
//! regions, below and above the device hole ([`shared_abi::layout`]); KVM is told of them as memory slots, and then
//! guest-physical address `gpa` and host-virtual address [`GuestMemory::hva`]`(gpa)` are the same byte.
//!
//! RAM may also start as that of a snapshot: then the same range maps `FrozenRam`, privately, and a page becomes this
//! machine's own when somebody first writes to it. So it is with constants of this program that RAM holds at the start, if
//! they are many bytes.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;
use shared_abi::boot_info::ram_regions;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, VolatileSlice};

use crate::config::{Backing, MemorySize, PageSize};
use crate::error::{Error, Result};
use crate::frozen::FrozenRam;
use crate::origin::Origin;
use crate::program_file;
use crate::reservation::Reservation;
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
    /// Parts that hold what this program's file does, whether anybody has touched them or not.
    of_program: Mutex<Vec<Extent>>,
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
            reservation
                .advise(reservation.whole(), libc::MADV_MERGEABLE)
                .map_err(failed("let KSM merge the"))?;
        }
        if backing.huge {
            reservation
                .advise(reservation.whole(), libc::MADV_HUGEPAGE)
                .map_err(failed("get huge pages for the"))?;
        }
        let regions = reservation.cut(ram_regions(size.bytes())).map_err(failed("map"))?;
        let (base, of_program) = (Mutex::default(), Mutex::default());
        Ok(Self { regions, reservation, size, backing, allocated_at, base, of_program })
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
        let (backing, base, of_program) = (Backing::default(), Mutex::default(), Mutex::default());
        Ok(Self { regions, reservation, size, backing, allocated_at, base, of_program })
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
        self.reservation
            .replace(self.reservation.whole(), frozen.file(), 0)
            .map_err(failed("map a snapshot of"))?;
        *self.base() = Some(Arc::clone(frozen));
        self.parts_of_program().clear();
        self.advise_to_merge().map_err(failed("let KSM merge the"))
    }

    /// A new mapping has none of the advice that an old one had.
    fn advise_to_merge(&self) -> io::Result<()> {
        if !self.backing.mergeable {
            return Ok(());
        }
        self.reservation.advise(self.reservation.whole(), libc::MADV_MERGEABLE)
    }

    /// The parts that hold what the program's file does: they are no zeros, and nobody need have touched them.
    pub(crate) fn parts_of_program(&self) -> MutexGuard<'_, Vec<Extent>> {
        self.of_program.lock().unwrap_or_else(PoisonError::into_inner)
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
            return self
                .reservation
                .advise(self.reservation.whole(), libc::MADV_DONTNEED)
                .map_err(failed("take back the"));
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
            None => touched::private(self, touched::pagemap().ok().as_ref()),
        };
        pages.iter().map(|extent| extent.end.0 - extent.start.0).sum()
    }

    /// The pages that are this machine's own, of RAM that started as `frozen`.
    pub(crate) fn private_pages(&self, frozen: &FrozenRam) -> Vec<Extent> {
        touched::private(self, frozen.pagemap())
    }

    /// Where the byte at `gpa` lies in a file that holds all RAM, one region behind the other.
    pub(crate) fn offset(&self, gpa: Gpa) -> Option<u64> {
        Some(self.hva(gpa)? - self.reservation.hva())
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
        self.reservation.mapped_at()
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

    /// Puts `bytes` at `gpa`, where nobody has written yet. If they are many, and a constant of this program, RAM maps the
    /// program's file there: that takes no page before somebody writes to it, and then one.
    ///
    /// # Errors
    /// [`OutsideRam`], and then nothing is written.
    pub(crate) fn write_or_map(&self, gpa: Gpa, bytes: &[u8]) -> std::result::Result<(), OutsideRam> {
        let size = bytes.len() as u64;
        // A part of huge pages would be none.
        if size < MIN_MAPPED || self.backing.huge || self.map_part(gpa, bytes).is_none() {
            return self.write(gpa, bytes);
        }
        self.parts_of_program().push(Extent { start: gpa, end: Gpa(gpa.0 + size) });
        Ok(())
    }

    /// Maps the program's file so that `constant` lies at `gpa`, if that can be.
    fn map_part(&self, gpa: Gpa, constant: &[u8]) -> Option<()> {
        let range = self.range(gpa, constant.len() as u64)?;
        let (file, file_offset) = program_file::find(constant)?;
        let is_whole_pages = |number: u64| number.is_multiple_of(PAGE_SIZE);
        if ![range.start, range.end, file_offset].into_iter().all(is_whole_pages) {
            return None;
        }
        self.reservation.replace(range, &file, file_offset).ok()?;
        // It was given before, and is only a wish.
        let _ = self.advise_to_merge();
        Some(())
    }

    /// Has the host give the pages of `gpa..gpa + size` at once: they are about to be written, and each would be a page
    /// fault. Where they fill huge pages it may give those (THP), which takes a third of the time. A kernel before Linux
    /// 5.14 does not know the advice, and gives them one by one.
    pub(crate) fn populate(&self, gpa: Gpa, size: u64) {
        const HUGE: u64 = PageSize::Size2M.bytes();
        let Some(range) = self.range(gpa, size) else { return };
        // RAM is the same bytes whether the host takes either advice or not.
        let advise = |range, advice| _ = self.reservation.advise(range, advice);
        let hva = self.reservation.hva();
        let (start, end) = ((hva + range.start).next_multiple_of(HUGE), (hva + range.end) / HUGE * HUGE);
        if start < end {
            advise(start - hva..end - hva, libc::MADV_HUGEPAGE);
        }
        advise(range, libc::MADV_POPULATE_WRITE);
    }

    /// Where `gpa..gpa + size` lies in the reservation; `None` when it is not all RAM.
    fn range(&self, gpa: Gpa, size: u64) -> Option<Range<u64>> {
        self.check(gpa, size).ok()?;
        let start = self.offset(gpa)?;
        Some(start..start + size)
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

/// Bytes from which it is faster to map a constant than to copy it.
const MIN_MAPPED: u64 = 64 << 10;
/// Bytes that are copied back at most: it takes a millisecond or two.
const MAX_COPIED: u64 = 32 << 20;

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

    /// As page tables lie in the program: whole pages at the start of one.
    #[repr(align(4096))]
    struct Pages([u8; MIN_MAPPED as usize]);
    static CONSTANT: Pages = Pages([0x5A; MIN_MAPPED as usize]);

    #[test]
    fn a_constant_takes_no_page_before_it_is_written_to_and_is_in_a_copy() {
        let (memory, gpa) = (memory("4M"), Gpa(0x10_0000));
        memory.write_or_map(gpa, &CONSTANT.0).expect("RAM");
        assert_eq!(memory.own_bytes(), 0);

        memory.write(Gpa(gpa.0 + 5), &[1]).expect("RAM");

        assert_eq!((memory.own_bytes(), CONSTANT.0[5]), (PAGE_SIZE, 0x5A));
        let frozen = FrozenRam::copy(&memory).expect("a copy");
        assert_eq!(frozen.pages(), [Extent { start: gpa, end: Gpa(gpa.0 + MIN_MAPPED) }]);
        memory.become_frozen(&frozen).expect("a mapping");
        assert_eq!(*memory.parts_of_program(), []);
        for memory in [&memory, frozen.view()] {
            let mut read = [0; MIN_MAPPED as usize];
            memory.read(gpa, &mut read).expect("RAM");
            assert!((0..).zip(read).all(|(at, byte)| byte == if at == 5 { 1 } else { 0x5A }));
        }
    }

    #[test]
    fn what_cannot_be_mapped_is_copied() {
        let huge = Backing { huge: true, mergeable: false };
        let in_huge_pages = GuestMemory::allocate("4M".parse().expect("a size"), huge).expect("RAM");
        let made = CONSTANT.0.to_vec();
        for (memory, gpa, bytes) in [
            (&in_huge_pages, Gpa(0x10_0000), &CONSTANT.0[..]),
            (&memory("4M"), Gpa(0x10_0008), &CONSTANT.0),
            (&memory("4M"), Gpa(0x10_0000), &made),
        ] {
            memory.write_or_map(gpa, bytes).expect("RAM");
            assert!(memory.own_bytes() >= MIN_MAPPED && memory.parts_of_program().is_empty());
            let mut read = [0; MIN_MAPPED as usize];
            memory.read(gpa, &mut read).expect("RAM");
            assert_eq!(read, CONSTANT.0);
        }
        let outside = OutsideRam { gpa: Gpa((4 << 20) - 8), size: MIN_MAPPED };
        assert_eq!(memory("4M").write_or_map(outside.gpa, &CONSTANT.0), Err(outside));
    }
}
