//! A process's memory: what lies where, and who gave it.
//!
//! ```text
//! 0x80_0000_0000 ┌ nothing           768 KiB  a stack that overflows faults
//! 0x80_000C_0000 ├ stack      rw-    256 KiB  a page at a time, when it is touched; grows down
//! 0x80_0010_0000 ├ image      r-x …  1023 MiB each segment with its own rights; text, then constants, then data
//! 0x80_4000_0000 ├ heap       rw-    1 GiB    grows up, by `SystemCall::Grow`
//! 0x80_8000_0000 └ nothing
//! ```
//!
//! As for the kernel, the stack lies below the image. Whatever is in here belongs to one process and is freed with it.
//! Addresses of other parts of memory are the kernel's, and no page there is for ring 3.

use shared_abi::addr::PAGE_SIZE;
use shared_abi::{Gpa, Gva};
use user_library::abi;

use crate::memory::USER_START;
use crate::memory::frames;
use crate::memory::paging::{AddressSpace, MapError, Mapping, Rights};

const MIB: u64 = 1 << 20;

/// Where the stack ends that grows down.
pub const STACK_END: u64 = abi::IMAGE;
/// Where it must not reach.
pub const STACK: u64 = STACK_END - (256 << 10);
/// Where an image may lie.
pub const IMAGE: u64 = abi::IMAGE;
/// Where it must end.
pub const IMAGE_END: u64 = USER_START + 1024 * MIB;
/// Where the heap starts.
pub const HEAP: u64 = IMAGE_END;
/// Where it must end.
pub const HEAP_END: u64 = HEAP + 1024 * MIB;

/// The most pages that a process may have: 16 MiB.
pub const MAX_PAGES: u64 = 16 * MIB / PAGE_SIZE;

const _: () = assert!(USER_START + PAGE_SIZE <= STACK && STACK_END <= IMAGE && IMAGE < IMAGE_END);

/// An address space, and what a process has in it.
#[derive(Debug)]
pub(super) struct Memory {
    space: AddressSpace,
    pages: u64,
    heap_end: u64,
}

/// Why a process gets no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// It has [`MAX_PAGES`].
    TooMuch,
    /// No frame is free.
    OutOfFrames,
    /// The address cannot be mapped.
    Map(MapError),
}

impl From<MapError> for MemoryError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::OutOfFrames => Self::OutOfFrames,
            error => Self::Map(error),
        }
    }
}

impl core::fmt::Display for MemoryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooMuch => write!(f, "a process has {MAX_PAGES} pages at most"),
            Self::OutOfFrames => f.write_str("no frame of RAM is free"),
            Self::Map(error) => error.fmt(f),
        }
    }
}

impl Memory {
    /// An empty space.
    pub(super) fn new() -> Result<Self, MemoryError> {
        Ok(Self { space: AddressSpace::new_user()?, pages: 0, heap_end: HEAP })
    }

    /// Has the CPU use it.
    pub(super) fn activate(&self) {
        if crate::cpu::cr3::read() != self.space.pml4() {
            // SAFETY: Processes run on one CPU, which leaves a space by itself when it is dropped.
            unsafe { self.space.activate() };
        }
    }

    /// Gives a page with `content` at its start, and zeros behind.
    pub(super) fn give(&mut self, gva: Gva, content: &[u8], rights: Rights) -> Result<(), MemoryError> {
        if self.pages == MAX_PAGES {
            return Err(MemoryError::TooMuch);
        }
        let mut frame = frames::allocate_zeroed().ok_or(MemoryError::OutOfFrames)?;
        if let Some(start) = frame.bytes_mut().get_mut(..content.len()) {
            start.copy_from_slice(content);
        }
        self.space.map_frame(gva, frame, rights.user())?;
        self.pages += 1;
        Ok(())
    }

    /// Where an address of the program's leads; `None` when there is nothing for ring 3.
    pub(super) fn find(&self, gva: Gva) -> Option<Mapping> {
        self.space.translate(gva).filter(|mapping| mapping.rights.is_user())
    }

    /// Two bytes of the program's code; `None` where it has none.
    pub(super) fn code(&self, gva: Gva) -> Option<[u8; 2]> {
        let first = self.find(gva)?.gpa;
        // Most often the next byte is on the same page, and one walk is enough.
        let second = match gva.page_offset() + 1 {
            PAGE_SIZE => self.find(gva.checked_add(1)?)?.gpa,
            _ => Gpa(first.0 + 1),
        };
        // SAFETY: Pages of the process are RAM, mapped at its own address, and the process does not run.
        Some([first, second].map(|gpa| unsafe { (gpa.0 as *const u8).read() }))
    }

    /// Gives the page of the stack at `gva`, if there could be one and is none. Says whether there is one now.
    pub(super) fn touch_stack(&mut self, gva: Gva) -> bool {
        let page = Gva(gva.0 & !(PAGE_SIZE - 1));
        (STACK..STACK_END).contains(&gva.0) && self.give(page, &[], Rights::READ_WRITE).is_ok()
    }

    /// Gives `size` bytes more of heap, and says where they start.
    pub(super) fn grow(&mut self, size: u64) -> Result<Gva, MemoryError> {
        let pages = size.div_ceil(PAGE_SIZE);
        if pages > MAX_PAGES - self.pages {
            return Err(MemoryError::TooMuch);
        }
        let start = self.heap_end;
        for _ in 0..pages {
            self.give(Gva(self.heap_end), &[], Rights::READ_WRITE)?;
            self.heap_end += PAGE_SIZE;
        }
        Ok(Gva(start))
    }
}

const _: () = assert!(HEAP + MAX_PAGES * PAGE_SIZE <= HEAP_END);
