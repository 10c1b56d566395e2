//! The program's first memory: one piece, handed out from front to back.
//!
//! A run is over in a millisecond, and a general allocator takes its share of that: it asks the kernel for memory in
//! many small pieces, spreads what it gives over many pages, and the kernel fills each page when it is first touched. What a
//! start needs is little and lives to the end. So it comes from one piece that is part of the program, in the order in
//! which it is asked for; of what is given back only the last is used again. When the piece is used up, which is so in
//! every longer run, the system's allocator takes over.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of the piece: a plain `vmm run` uses nearly all of it.
const SIZE: usize = 128 << 10;

/// The piece, and how much of it is in use.
pub(crate) struct Arena {
    space: UnsafeCell<Space>,
    used: AtomicUsize,
    /// The most that ever was: what lies above is zero still.
    most_used: AtomicUsize,
}

/// Room that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    offset: usize,
    is_zero: bool,
}

#[repr(C, align(4096))]
struct Space([u8; SIZE]);

// SAFETY: Every byte of the space is given to one owner at a time: `used` is changed by atomic operations only, and what
// lies below it belongs to whoever got it.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) const fn new() -> Self {
        let (used, most_used) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { space: UnsafeCell::new(Space([0; SIZE])), used, most_used }
    }

    /// Has the kernel fill all its pages in one call, which is cheaper than a page fault for each. A kernel before Linux 5.14
    /// cannot, and then they are filled when they are touched.
    pub(crate) fn fill(&self) {
        // SAFETY: The range is the space's own; the advice changes no contents.
        unsafe { libc::madvise(self.start().cast(), SIZE, libc::MADV_POPULATE_WRITE) };
    }

    fn start(&self) -> *mut u8 {
        self.space.get().cast()
    }

    /// Where in the space `pointer` leads, if there.
    fn offset(&self, pointer: *const u8) -> Option<usize> {
        let offset = (pointer as usize).wrapping_sub(self.start() as usize);
        (offset < SIZE).then_some(offset)
    }

    /// Takes room for `layout`.
    fn take(&self, layout: Layout) -> Option<Room> {
        if layout.align() > align_of::<Space>() {
            return None;
        }
        let room = |used: usize| {
            let start = used.next_multiple_of(layout.align());
            Some((start, start.checked_add(layout.size()).filter(|end| *end <= SIZE)?))
        };
        let before = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| Some(room(used)?.1));
        let (offset, end) = room(before.ok()?)?;
        let is_zero = self.most_used.fetch_max(end, Ordering::AcqRel) <= offset;
        Some(Room { offset, is_zero })
    }

    /// Moves the end of the last piece that was taken from `end` to `new_end`; false when it is not the last any more.
    fn move_end(&self, end: usize, new_end: usize) -> bool {
        let moved = new_end <= SIZE
            && self.used.compare_exchange(end, new_end, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if moved {
            self.most_used.fetch_max(new_end, Ordering::AcqRel);
        }
        moved
    }
}

// SAFETY: What is handed out is aligned, as large as asked for, and nobody else's until it is given back; what does not come
// from the space comes from the system's allocator and goes back there.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.take(layout) {
            // SAFETY: `take` gives offsets inside the space.
            Some(room) => unsafe { self.start().add(room.offset) },
            // SAFETY: The caller's promise is the same.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let Some(room) = self.take(layout) else {
            // SAFETY: The caller's promise is the same.
            return unsafe { System.alloc_zeroed(layout) };
        };
        // SAFETY: `take` gives room inside the space, which is nobody else's.
        unsafe {
            let start = self.start().add(room.offset);
            if !room.is_zero {
                start.write_bytes(0, layout.size());
            }
            start
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset(pointer) {
            Some(offset) => {
                self.move_end(offset + layout.size(), offset);
            }
            // SAFETY: It is not ours, so it is the system's.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.offset(pointer) else {
            // SAFETY: It is not ours, so it is the system's.
            return unsafe { System.realloc(pointer, layout, new_size) };
        };
        if self.move_end(offset + layout.size(), offset + new_size) {
            return pointer;
        }
        // SAFETY: The caller promises that the new size fits a layout; both pieces are as large as the bytes copied, and
        // the new one is nobody else's.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                new.copy_from_nonoverlapping(pointer, layout.size().min(new_size));
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("a layout")
    }

    #[test]
    fn pieces_do_not_overlap_and_the_last_is_used_again() {
        let arena = Arena::new();
        let room = |offset, is_zero| Some(Room { offset, is_zero });
        assert_eq!((arena.take(layout(5)), arena.take(layout(8))), (room(0, true), room(8, true)));
        assert!(!arena.move_end(5, 0), "it is not the last");
        assert!(arena.move_end(16, 8));
        assert_eq!(arena.take(layout(100)), room(8, false));
        assert!(arena.move_end(108, 200), "it grows");
        assert!(arena.move_end(200, 8));
        assert_eq!((arena.take(layout(192)), arena.take(layout(1))), (room(8, false), room(200, true)));
    }

    #[test]
    fn zeroed_pieces_are_zero_however_they_were_used_before() {
        let arena = Arena::new();
        // SAFETY: Each piece is used within its size and given back once, with its layout.
        unsafe {
            let first = arena.alloc(layout(64));
            first.write_bytes(7, 64);
            arena.dealloc(first, layout(64));
            let second = arena.alloc_zeroed(layout(128));
            assert_eq!(arena.offset(second), Some(0));
            assert_eq!(std::slice::from_raw_parts(second, 128), [0; 128]);
        }
    }

    #[test]
    fn what_does_not_fit_comes_from_the_system_and_goes_back_there() {
        let arena = Arena::new();
        assert_eq!(arena.take(layout(SIZE + 1)), None);
        // SAFETY: Each piece is used within its size and given back once, with its layout.
        unsafe {
            let large = arena.alloc(layout(SIZE + 1));
            assert_eq!(arena.offset(large), None);
            large.add(SIZE).write(1);
            arena.dealloc(large, layout(SIZE + 1));

            let small = arena.alloc(layout(4));
            small.write_bytes(7, 4);
            let blocker = arena.alloc(layout(4));
            let moved = arena.realloc(small, layout(4), SIZE);
            assert_eq!((arena.offset(moved), moved.read()), (None, 7));
            arena.dealloc(moved, layout(SIZE));
            arena.dealloc(blocker, layout(4));
        }
    }
}
