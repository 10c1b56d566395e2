//! How often a thread has taken memory: all that the tests take is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    /// Constant-initialised and without a destructor, so that counting takes no memory itself.
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has taken memory, or more of what it had, since it started.
pub(crate) fn taken() -> u64 {
    TAKEN.get()
}

/// The system's allocator, counted by thread.
struct Counting;

// SAFETY: Everything is the system allocator's: the same calls with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: The caller promises what is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: As above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: As above.
        unsafe { System.realloc(memory, layout, new_size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: As above.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn count() {
    TAKEN.set(TAKEN.get() + 1);
}
