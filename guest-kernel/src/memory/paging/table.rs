//! A page table in memory: 512 entries that the CPU reads whenever it likes.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use shared_abi::Gpa;

use super::MapError;
use super::entry::{Entry, Level};
use crate::cpu::scan;
use crate::memory::frames::{self, Frame};

/// Entries of a table.
pub(super) const ENTRIES: usize = 512;

/// A table, by the address of its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Table {
    gpa: Gpa,
}

impl Table {
    /// The table at `gpa`.
    ///
    /// # Safety
    /// A page table lies there, and stays one for as long as this is used. It is mapped at its own address.
    pub(super) const unsafe fn at(gpa: Gpa) -> Self {
        Self { gpa }
    }

    /// A new one, without entries.
    pub(super) fn new() -> Result<Self, MapError> {
        frames::allocate_zeroed().map(|frame| Self { gpa: frame.into_gpa() }).ok_or(MapError::OutOfFrames)
    }

    /// Frees it.
    ///
    /// # Safety
    /// It was made by [`new`](Self::new), and no CPU walks it any more.
    pub(super) unsafe fn free(self) {
        // SAFETY: `new` has given up this frame; the caller promises that nobody uses it.
        drop(unsafe { Frame::from_gpa(self.gpa) });
    }

    pub(super) const fn gpa(self) -> Gpa {
        self.gpa
    }

    pub(super) fn entry(self, index: usize) -> Entry {
        Entry(self.word(index).load(Ordering::Relaxed))
    }

    pub(super) fn set(self, index: usize, entry: Entry) {
        // Release: who walks to what is behind this entry finds it complete.
        self.word(index).store(entry.0, Ordering::Release);
    }

    /// The table that an entry of a table of `level` leads to; `None` when it maps a page or nothing.
    pub(super) fn below(self, index: usize, level: Level) -> Option<Self> {
        let entry = self.entry(index);
        let is_table = entry.is_present() && !entry.is_page(level);
        // SAFETY: A present entry that maps no page leads to a table (Intel SDM vol. 3A, 4.5), and all tables are the
        // VMM's first ones or come from `new`: RAM that is mapped at its own address.
        is_table.then(|| unsafe { Self::at(entry.gpa()) })
    }

    /// Replaces a large page by a table that maps its pieces. Addresses lead where they led.
    pub(super) fn split(self, index: usize, level: Level, below: Level) -> Result<Self, MapError> {
        let page = self.entry(index);
        let pieces = Self::new()?;
        (0..ENTRIES).for_each(|piece| pieces.set(piece, page.piece(piece, below)));
        debug_assert!(page.is_page(level));
        self.set(index, Entry::table(pieces.gpa, page.rights().is_user()));
        Ok(pieces)
    }

    /// The place of the first entry in a range that is not empty.
    pub(super) fn first_used(self, range: Range<usize>) -> Option<usize> {
        let start = range.start;
        let words = (self.gpa.0 as *const AtomicU64).cast::<[AtomicU64; ENTRIES]>();
        // SAFETY: As for `word`: all entries of the table.
        let words = unsafe { &*words }.get(range)?;
        scan::first_nonzero(words).map(|place| start + place)
    }

    fn word(self, index: usize) -> &'static AtomicU64 {
        assert!(index < ENTRIES, "a table has 512 entries");
        let word = (self.gpa.0 as *const AtomicU64).wrapping_add(index);
        // SAFETY: An entry of a table, which lies there as `at` demands; it is reached by atomics only.
        unsafe { &*word }
    }
}
