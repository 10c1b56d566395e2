//! The heap: what `Vec`, `String` and `Box` live on.
//!
//! It is a stretch of virtual addresses, [`HEAP`], of which the beginning is mapped. When nothing there is
//! free that is large enough, it maps more frames behind it; frames need not be neighbours for that. Which bytes are
//! free is kept by the crate talc, in the memory itself.
//!
//! ```text
//! HEAP ┌────────────────────────────┬──────────────────────────────────────┐ HEAP_END
//!      │ mapped: in use, free, in …  │ not mapped                           │
//!      └────────────────────────────┴──────────────────────────────────────┘
//!                                   └► grows, 16 pages at least
//! ```
//!
//! It does not shrink. When no frame is left, `try_reserve` and its like say so, and whoever cannot live without the
//! memory panics; the last words say how much was wanted and how much there was.

use core::alloc::{GlobalAlloc, Layout};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use shared_abi::Gva;
use shared_abi::addr::{PAGE_SIZE, page_align_up};
use talc::DefaultBinning;
use talc::base::Talc;
use talc::source::Manual;

use super::paging::{AddressSpace, PageSize, Rights};
use super::{HEAP, HEAP_END, frames};
use crate::sync::Mutex;

/// What the heap grows by at least, in bytes.
const GROWTH: u64 = 16 * PAGE_SIZE;
/// Bytes of a large page.
const LARGE: u64 = PageSize::Size2M.bytes();
/// What talc may need beside the memory that it gives out.
const OVERHEAD: usize = 64 + talc::min_first_heap_size::<DefaultBinning>();

/// The heap of all programs. Where there is an operating system, it has one.
#[cfg_attr(target_os = "none", global_allocator)]
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "the host has a heap of its own"))]
static GLOBAL: Heap = Heap { state: Mutex::new(State::new()) };

struct Heap {
    state: Mutex<State>,
}

struct State {
    talc: Talc<Manual, DefaultBinning>,
    /// Where the mapped part ends.
    end: u64,
    in_use: u64,
}

/// How much of the heap there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that programs have asked for and not given back.
    pub in_use: u64,
    /// Bytes that are mapped.
    pub mapped: u64,
}

/// How much of the heap there is now.
#[cfg(target_os = "none")]
#[must_use]
pub fn usage() -> Usage {
    let state = GLOBAL.state.lock();
    Usage { in_use: state.in_use, mapped: state.end - HEAP }
}

/// How much of the heap there is; on the host it is another's.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn usage() -> Usage {
    panic!("{}", crate::cpu::NOT_IN_A_MACHINE);
}

impl State {
    const fn new() -> Self {
        Self { talc: Talc::new(Manual), end: HEAP, in_use: 0 }
    }

    fn allocate(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        loop {
            // SAFETY: The size is not 0, as those who call a `GlobalAlloc` promise.
            if let Some(memory) = unsafe { self.talc.try_allocate(layout) } {
                self.in_use += layout.size() as u64;
                return Some(memory);
            }
            self.grow(layout)?;
        }
    }

    /// Maps enough for `layout`, and a little more so that the next need not. `None` when there is not enough.
    fn grow(&mut self, layout: Layout) -> Option<()> {
        let size = layout.size().checked_add(layout.align())?.checked_add(OVERHEAD)?;
        let size = page_align_up(size as u64)?;
        let free = frames::free_count() * PAGE_SIZE;
        // The last memory goes to those who need it, not to those who may.
        let size = if free < GROWTH + size { size } else { size.max(GROWTH) };
        if size > free || size > HEAP_END - self.end {
            return None;
        }
        let start = self.end;
        self.map(start + size);
        self.take_in(start);
        // Page tables need frames, too: what was mapped may be less.
        (self.end == start + size).then_some(())
    }

    /// Maps pages up to `end`, or as far as frames go: large ones where they fit, and small ones up to there.
    fn map(&mut self, end: u64) {
        let mut kernel = AddressSpace::kernel();
        while self.end < end {
            let piece = (LARGE - self.end % LARGE).min(end - self.end);
            let mapped = map_piece(&mut kernel, self.end, piece);
            self.end += mapped;
            if mapped < piece {
                return;
            }
        }
    }

    /// Has talc give out what was mapped behind `start`.
    fn take_in(&mut self, start: u64) {
        let size = (self.end - start) as usize;
        if size == 0 {
            return;
        }
        let (from, to) = (start as *mut u8, self.end as *mut u8);
        // SAFETY: These pages were mapped just now, for the heap alone, and stay mapped. What talc had before ends at
        // `start`, which is a multiple of all that it rounds to, unless it had nothing.
        unsafe {
            match NonNull::new(from).filter(|_| self.talc.is_metadata_established()) {
                Some(end) => drop(self.talc.extend(end, to)),
                None => drop(self.talc.claim(from, size)),
            }
        }
    }
}

/// Maps `size` bytes, at most a large page, and gives how many it mapped. Neighbours are mapped sooner, but any frames
/// will do.
fn map_piece(kernel: &mut AddressSpace, start: u64, size: u64) -> u64 {
    let (gva, rights) = (Gva(start), Rights::READ_WRITE);
    if size == LARGE
        && let Some(run) = frames::allocate_contiguous(LARGE / PAGE_SIZE, LARGE)
        && kernel.map(gva, run.gpa(), PageSize::Size2M, rights).is_ok()
    {
        let _ = run.into_gpa();
        return size;
    }
    if let Some(run) = frames::allocate_contiguous(size / PAGE_SIZE, PAGE_SIZE)
        && kernel.map_run(gva, run, rights).is_ok()
    {
        return size;
    }
    let mut mapped = 0;
    while mapped < size
        && let Some(frame) = frames::allocate()
        && kernel.map_frame(Gva(start + mapped), frame, rights).is_ok()
    {
        mapped += PAGE_SIZE;
    }
    mapped
}

// SAFETY: talc keeps the promises of an allocator for memory that it was given, one caller at a time; it was given
// pages that nobody else has. Nothing here allocates or unwinds: frames and page tables do without a heap.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.state.lock().allocate(layout) {
            Some(memory) => memory.as_ptr(),
            None => {
                Shortage::note(layout);
                core::ptr::null_mut()
            }
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        let mut state = self.state.lock();
        state.in_use -= layout.size() as u64;
        // SAFETY: The caller's promise: it came from `alloc` with this layout.
        unsafe { state.talc.deallocate(memory, layout) };
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        {
            let mut state = self.state.lock();
            // SAFETY: The caller's promise: it came from `alloc` with this layout, and `size` is not 0.
            if unsafe { state.talc.try_realloc_in_place(memory, layout, size) } {
                state.in_use = state.in_use + size as u64 - layout.size() as u64;
                return memory;
            }
        }
        // SAFETY: The caller's promise: with this alignment, `size` is a layout. Old and new memory are both this
        // caller's, do not overlap, and have at least so many bytes.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(memory, size.min(layout.size()));
                self.dealloc(memory, layout);
            }
            new
        }
    }
}

/// What was asked for when there was not enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes that were asked for.
    wanted: u64,
    /// Frames that were free.
    free_frames: u64,
}

/// The last one, for the last words: they must not take a lock.
static WANTED: AtomicU64 = AtomicU64::new(0);
static FREE_FRAMES: AtomicU64 = AtomicU64::new(0);

impl Shortage {
    /// The last shortage of this run.
    #[must_use]
    pub fn last() -> Option<Self> {
        let wanted = WANTED.load(Ordering::Relaxed);
        (wanted > 0).then(|| Self { wanted, free_frames: FREE_FRAMES.load(Ordering::Relaxed) })
    }

    fn note(layout: Layout) {
        WANTED.store(layout.size() as u64, Ordering::Relaxed);
        FREE_FRAMES.store(frames::free_count(), Ordering::Relaxed);
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wanted, free_frames } = self;
        let free_kib = free_frames * (PAGE_SIZE >> 10);
        write!(
            f,
            "the heap was asked for {wanted} bytes when {free_kib} KiB of RAM were free: --memory gives more"
        )
    }
}
