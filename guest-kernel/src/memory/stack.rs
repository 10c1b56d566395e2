//! Stacks: for CPUs, processes, tasks. Below each lies a page that is never mapped.
//!
//! A stack that grows too far would write into whatever lies below it, and the mistake would show somewhere else, later.
//! With a guard page the first byte too far is a page fault, and the host says that it was a stack.
//!
//! ```text
//! STACKS ┌───────┬──────────────────┬───────┬───────┬──────────────────┬───────┬──
//!        │ guard │ …       not used │ stack │ guard │ …       not used │ stack │
//!        └───────┴──────────────────┴───────┴───────┴──────────────────┴───────┴──
//!        └───────────── a place ────────────┴───────────── a place ────────────┴──
//! ```
//!
//! All places have the same size; so the first one that is free will do, and what a stack does not use of it guards
//! it as well.

use core::mem::ManuallyDrop;

use shared_abi::Gva;
use shared_abi::addr::{PAGE_SIZE, page_align_up};

use super::paging::{AddressSpace, MapError, PageSize, Rights};
use super::{STACKS, STACKS_END, frames};
use crate::cpu::call_on::call_on;
use crate::sync::Mutex;

/// Bytes of a place.
const PLACE: u64 = 1 << 20;
/// Places that there are.
const PLACES: u64 = (STACKS_END - STACKS) / PLACE;

/// The most that a stack may have, in bytes.
pub const MAX_SIZE: u64 = PLACE - PAGE_SIZE;

/// The lowest place that may be free; all below are taken.
static NEXT: Mutex<u64> = Mutex::new(0);

/// A stack. Dropping it unmaps it and frees its frames.
#[derive(Debug)]
pub struct Stack {
    place: u64,
    size: u64,
}

impl Stack {
    /// Maps a stack of `size` bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// [`MapError::OutOfFrames`]; then no frame is used.
    ///
    /// # Panics
    /// When `size` is 0, or more than [`MAX_SIZE`].
    pub fn allocate(size: u64) -> Result<Self, MapError> {
        let size = page_align_up(size).filter(|size| (PAGE_SIZE..=MAX_SIZE).contains(size));
        let size = size.expect("a stack has 1 byte to 1020 KiB");
        let mut next = NEXT.lock();
        let mut kernel = AddressSpace::kernel();
        let is_free = |&place: &u64| kernel.translate(top_page(place)).is_none();
        let place = (*next..PLACES).find(is_free).expect("a machine has not the RAM for so many stacks");

        let stack = ManuallyDrop::new(Self { place, size });
        map(&mut kernel, stack.start(), size / PAGE_SIZE)?;
        *next = place + 1;
        Ok(ManuallyDrop::into_inner(stack))
    }

    /// Calls `work` on this stack, and returns when it does.
    pub fn run(&mut self, work: extern "C" fn()) {
        // SAFETY: The stack is mapped from its start to its end, a multiple of 16, and the exclusive borrow keeps others
        // away. What it lacks the guard page notices.
        unsafe { call_on(self.end(), work) };
    }

    /// Its lowest byte. The page below is the guard.
    #[must_use]
    pub fn start(&self) -> Gva {
        Gva(self.end().0 - self.size)
    }

    /// The first address above it: what RSP starts with. A multiple of 16.
    #[must_use]
    pub fn end(&self) -> Gva {
        Gva(STACKS + (self.place + 1) * PLACE)
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let mut next = NEXT.lock();
        let mut kernel = AddressSpace::kernel();
        unmap(&mut kernel, self.start(), self.size / PAGE_SIZE);
        *next = (*next).min(self.place);
    }
}

/// Maps `count` pages: frames that are neighbours, or any.
fn map(kernel: &mut AddressSpace, start: Gva, count: u64) -> Result<(), MapError> {
    if let Some(run) = frames::allocate_contiguous(count, PAGE_SIZE) {
        return kernel.map_run(start, run, Rights::READ_WRITE);
    }
    for page in 0..count {
        let gva = Gva(start.0 + page * PAGE_SIZE);
        let frame = frames::allocate().ok_or(MapError::OutOfFrames);
        if let Err(error) = frame.and_then(|frame| kernel.map_frame(gva, frame, Rights::READ_WRITE)) {
            unmap(kernel, start, page);
            return Err(error);
        }
    }
    Ok(())
}

/// Takes `count` pages away that [`map`] has mapped and nobody uses.
fn unmap(kernel: &mut AddressSpace, start: Gva, count: u64) {
    for page in 0..count {
        // SAFETY: They are the stack's, which nobody has any more or yet.
        let frame = unsafe { kernel.unmap(Gva(start.0 + page * PAGE_SIZE), PageSize::Size4K) };
        drop(frame.expect("`map` has mapped it"));
    }
}

/// The page that every stack in this place has.
fn top_page(place: u64) -> Gva {
    Gva(STACKS + (place + 1) * PLACE - PAGE_SIZE)
}
