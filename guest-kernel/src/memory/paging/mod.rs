//! Page tables as the kernel changes them: map, unmap, protect, translate.
//!
//! The VMM has made the first ones (`vmm/src/boot/page_tables.rs` draws the walk); they map RAM to itself, the tables
//! included, so the kernel reads and writes them where they lie.
//!
//! An [`AddressSpace`] is a PML4. There is the kernel's, and one for each process. Two entries of it are the same in
//! all of them, number 0 (RAM, mapped to itself) and number 256 (heap and stacks): what is mapped below these is seen
//! everywhere at once, and a CPU can take any of the tables into CR3 without losing the ground under its feet.
//!
//! ```text
//!  kernel's PML4           a process's PML4
//!   0 ───────────► PDPT ◄─────────── 0       RAM, mapped to itself
//!   1 …                              1 … ──► its own: pages for user mode
//! 256 ───────────► PDPT ◄───────── 256       heap, stacks
//! ```
//!
//! A page is the space's own when it came as a [`Frame`], and then it is freed with the space; or
//! it is somebody else's. What is present is never replaced, it must be unmapped first: so mapping breaks nobody's
//! memory, and is safe.

mod entry;
mod error;
mod table;

pub use entry::{PageSize, Rights};
pub use error::MapError;

use core::ops::Range;
use shared_abi::addr::PAGE_SIZE;

use shared_abi::{Gpa, Gva};

use super::frames::{Frame, FrameRun};
use super::{KERNEL_HIGH, KERNEL_HIGH_END, SLOT_SIZE, USER_END, USER_START, tlb};
use crate::cpu::cr3;
use crate::sync::{Guard, Mutex};
use entry::{Entry, Level};
use table::{ENTRIES, Table};

/// The entries of a PML4 that all spaces have in common.
const SHARED: [usize; 2] = [0, Level::Pml4.index(Gva(KERNEL_HIGH))];
/// The entries that are a process's own.
const OWN: Range<usize> = Level::Pml4.index(Gva(USER_START))..Level::Pml4.index(Gva(USER_END));

/// Four levels of page tables.
#[derive(Debug)]
pub struct AddressSpace {
    kind: Kind,
    root: Option<Table>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kernel,
    User,
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The address in RAM, or of a device.
    pub gpa: Gpa,
    /// Bytes of the page that maps it.
    pub page_size: u64,
    /// What may be done with the page.
    pub rights: Rights,
}

static KERNEL: Mutex<AddressSpace> = Mutex::new(AddressSpace { kind: Kind::Kernel, root: None });

impl AddressSpace {
    /// The kernel's own, for as long as the guard lives.
    pub fn kernel() -> Guard<'static, Self> {
        let mut space = KERNEL.lock();
        if space.root.is_none() {
            space.root = Some(kernel_root());
        }
        space
    }

    /// A new space: the kernel's part of memory, and nothing else.
    ///
    /// # Errors
    /// [`MapError::OutOfFrames`].
    pub fn new_user() -> Result<Self, MapError> {
        let kernel = Self::kernel().root();
        let root = Table::new()?;
        SHARED.iter().for_each(|&index| root.set(index, kernel.entry(index)));
        Ok(Self { kind: Kind::User, root: Some(root) })
    }

    /// Where its PML4 lies: what CR3 holds while a CPU uses it.
    #[must_use]
    pub fn pml4(&self) -> Gpa {
        self.root().gpa()
    }

    /// Has this CPU use it.
    ///
    /// # Safety
    /// It is not dropped while another CPU uses it. (This one goes back to the kernel's space by itself.)
    pub unsafe fn activate(&self) {
        // SAFETY: Every space maps what is the kernel's, and lives until it is dropped.
        unsafe { cr3::write(self.pml4()) };
    }

    /// Maps a page that is somebody else's: a device, memory that is shared.
    ///
    /// # Errors
    /// [`MapError`]; then nothing is mapped.
    pub fn map(&mut self, gva: Gva, gpa: Gpa, size: PageSize, rights: Rights) -> Result<(), MapError> {
        if !gpa.0.is_multiple_of(size.bytes()) {
            return Err(MapError::Misaligned { address: gpa.0, size: size.bytes() });
        }
        self.enter(gva, size, Entry::page(gpa, size.level(), rights))
    }

    /// Maps a frame, which is the space's from now on.
    ///
    /// # Errors
    /// [`MapError`]; then nothing is mapped, and the frame is freed.
    pub fn map_frame(&mut self, gva: Gva, frame: Frame, rights: Rights) -> Result<(), MapError> {
        let size = PageSize::Size4K;
        self.enter(gva, size, Entry::page(frame.gpa(), size.level(), rights).owned())?;
        let _ = frame.into_gpa();
        Ok(())
    }

    /// Maps frames one behind the other by 4 KiB pages. They are the space's from now on, each by itself.
    ///
    /// # Errors
    /// [`MapError`]; then nothing is mapped, and the frames are freed.
    pub fn map_run(&mut self, gva: Gva, frames: FrameRun, rights: Rights) -> Result<(), MapError> {
        let (size, count) = (PageSize::Size4K, frames.count());
        self.check(gva, size)?;
        let last = gva.checked_add((count - 1) * PAGE_SIZE).ok_or(MapError::OutsideSpace { gva })?;
        self.check(last, size)?;
        let first = Entry::page(frames.gpa(), size.level(), rights).owned();
        let (done, result) = self.enter_run(gva, first, count);
        if result.is_ok() {
            let _ = frames.into_gpa();
            return Ok(());
        }
        for page in 0..done {
            let gva = Gva(gva.0 + page * PAGE_SIZE);
            let (table, index) = self.find(gva, size)?;
            table.set(index, Entry::NONE);
            tlb::flush(gva);
        }
        result
    }

    /// Takes a page away, and gives its frame if it was the space's. A piece of a larger page can be taken away, too.
    ///
    /// # Errors
    /// [`MapError`]; then nothing has changed.
    ///
    /// # Safety
    /// Nobody uses memory by this address any more.
    pub unsafe fn unmap(&mut self, gva: Gva, size: PageSize) -> Result<Option<Frame>, MapError> {
        let (table, index) = self.find(gva, size)?;
        let entry = table.entry(index);
        table.set(index, Entry::NONE);
        tlb::flush(gva);
        // SAFETY: An owned entry has taken the frame by `into_gpa`, and is gone; no CPU remembers it.
        Ok(entry.is_owned().then(|| unsafe { Frame::from_gpa(entry.gpa()) }))
    }

    /// Changes what may be done with a page, or with a piece of a larger one.
    ///
    /// # Errors
    /// [`MapError`]; then nothing has changed.
    ///
    /// # Safety
    /// Whoever uses memory by this address needs no more than the new rights.
    pub unsafe fn protect(&mut self, gva: Gva, size: PageSize, rights: Rights) -> Result<(), MapError> {
        let (table, index) = self.find(gva, size)?;
        table.set(index, table.entry(index).with_rights(rights));
        tlb::flush(gva);
        Ok(())
    }

    /// Where an address leads; `None` when it is not mapped.
    #[must_use]
    pub fn translate(&self, gva: Gva) -> Option<Mapping> {
        if !is_canonical(gva) {
            return None;
        }
        let (mut table, mut level) = (self.root(), Level::Pml4);
        loop {
            let index = level.index(gva);
            let entry = table.entry(index);
            if !entry.is_present() {
                return None;
            }
            if entry.is_page(level) {
                let page_size = level.entry_size();
                // In a large page's entry, bits below its size are no address.
                let page = entry.gpa().0 & !(page_size - 1);
                let gpa = Gpa(page | gva.0 & (page_size - 1));
                return Some(Mapping { gpa, page_size, rights: entry.rights() });
            }
            (table, level) = (table.below(index, level)?, level.below()?);
        }
    }

    fn root(&self) -> Table {
        self.root.expect("a space has its root since `kernel` or `new_user`")
    }

    /// Writes an entry where there is none, with the tables that lead to it.
    fn enter(&mut self, gva: Gva, size: PageSize, entry: Entry) -> Result<(), MapError> {
        self.check(gva, size)?;
        let (table, index) = (self.table_for(gva, size.level())?, size.level().index(gva));
        if table.entry(index).is_present() {
            return Err(MapError::AlreadyMapped { gva });
        }
        table.set(index, entry);
        Ok(())
    }

    /// Writes `count` entries, the first of them `page` and the others for the frames behind it. A table at a time: a
    /// kernel that is interpreted, and not optimised, feels the difference. Gives how many it wrote, and why not all.
    fn enter_run(&mut self, gva: Gva, page: Entry, count: u64) -> (u64, Result<(), MapError>) {
        let mut done = 0;
        while done < count {
            let next = Gva(gva.0 + done * PAGE_SIZE);
            let table = match self.table_for(next, Level::Pt) {
                Ok(table) => table,
                Err(error) => return (done, Err(error)),
            };
            let mut index = Level::Pt.index(next);
            while index < ENTRIES && done < count {
                if table.entry(index).is_present() {
                    return (done, Err(MapError::AlreadyMapped { gva: Gva(gva.0 + done * PAGE_SIZE) }));
                }
                table.set(index, Entry(page.0 + done * PAGE_SIZE));
                (index, done) = (index + 1, done + 1);
            }
        }
        (done, Ok(()))
    }

    /// The table of `level` for an address; those that are missing on the way are made.
    fn table_for(&mut self, gva: Gva, level: Level) -> Result<Table, MapError> {
        let (mut table, mut reached) = (self.root(), Level::Pml4);
        while reached != level {
            let index = reached.index(gva);
            table = match table.below(index, reached) {
                Some(below) => below,
                None if table.entry(index).is_present() => return Err(MapError::AlreadyMapped { gva }),
                None => {
                    let new = Table::new()?;
                    table.set(index, Entry::table(new.gpa(), self.kind == Kind::User));
                    new
                }
            };
            reached = reached.below().expect("pages are mapped by the last two levels");
        }
        Ok(table)
    }

    /// The entry that maps a page of this size; a larger page is split.
    fn find(&mut self, gva: Gva, size: PageSize) -> Result<(Table, usize), MapError> {
        self.check(gva, size)?;
        let (mut table, mut level) = (self.root(), Level::Pml4);
        loop {
            let index = level.index(gva);
            let entry = table.entry(index);
            if !entry.is_present() {
                return Err(MapError::NotMapped { gva });
            }
            let is_page = entry.is_page(level);
            if level == size.level() {
                return if is_page { Ok((table, index)) } else { Err(MapError::SmallerPages { gva }) };
            }
            let below = level.below().expect("pages are mapped by the last two levels");
            table = match table.below(index, level) {
                Some(below) => below,
                None => {
                    let pieces = table.split(index, level, below)?;
                    tlb::flush(gva);
                    pieces
                }
            };
            level = below;
        }
    }

    /// Refuses what is no page, or not of this space.
    fn check(&self, gva: Gva, size: PageSize) -> Result<(), MapError> {
        if !is_canonical(gva) {
            return Err(MapError::NotCanonical { gva });
        }
        if !gva.0.is_multiple_of(size.bytes()) {
            return Err(MapError::Misaligned { address: gva.0, size: size.bytes() });
        }
        let is_ours = match self.kind {
            Kind::Kernel => gva.0 < SLOT_SIZE || (KERNEL_HIGH..KERNEL_HIGH_END).contains(&gva.0),
            Kind::User => (USER_START..USER_END).contains(&gva.0),
        };
        if is_ours { Ok(()) } else { Err(MapError::OutsideSpace { gva }) }
    }
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        let Some(root) = self.root.filter(|_| self.kind == Kind::User) else { return };
        if cr3::read() == root.gpa() {
            // SAFETY: The kernel's tables map what every space has in common, and are never freed.
            unsafe { cr3::write(first_tables()) };
        }
        // SAFETY: What lies below these entries is this space's alone, and no CPU uses it: this one has just left it,
        // and of the others the caller of `activate` has promised it.
        unsafe {
            free_below(root, OWN, Level::Pml4);
            root.free();
        }
    }
}

/// Frees what entries of a table lead to: the space's own pages, and all tables below.
///
/// # Safety
/// No CPU walks these tables any more, and nobody uses the pages.
unsafe fn free_below(table: Table, entries: Range<usize>, level: Level) {
    let Range { mut start, end } = entries;
    while let Some(index) = table.first_used(start..end) {
        start = index + 1;
        let entry = table.entry(index);
        if entry.is_owned() {
            // SAFETY: The entry has taken the frame by `into_gpa`; the table that holds it is freed right after this.
            drop(unsafe { Frame::from_gpa(entry.gpa()) });
        }
        if let (Some(below), Some(next)) = (table.below(index, level), level.below()) {
            // SAFETY: The caller's promise. Tables of user addresses come from `Table::new`.
            unsafe {
                free_below(below, 0..ENTRIES, next);
                below.free();
            }
        }
    }
}

/// The VMM's first tables, with the entry for heap and stacks that every space copies: it must be there before the first
/// of them does.
fn kernel_root() -> Table {
    #[repr(C, align(4096))]
    struct High([core::sync::atomic::AtomicU64; ENTRIES]);
    static HIGH: High = High([const { core::sync::atomic::AtomicU64::new(0) }; ENTRIES]);

    // SAFETY: The VMM has put its PML4 there; tables are RAM that is mapped at its own address, and are never freed.
    let root = unsafe { Table::at(first_tables()) };
    root.set(SHARED[1], Entry::table(Gpa(&raw const HIGH as u64), false));
    root
}

/// Where the VMM has put its PML4, which is the kernel's.
fn first_tables() -> Gpa {
    Gpa(crate::boot_info().page_tables.start)
}

/// Whether bits 63 to 47 are all the same (Intel SDM vol. 1, 3.3.7.1).
fn is_canonical(gva: Gva) -> bool {
    (gva.0 as i64) << 16 >> 16 == gva.0 as i64
}
