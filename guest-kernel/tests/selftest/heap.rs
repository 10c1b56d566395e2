//! The heap: what is on it stays as it was written, comes back, and ends in a sentence when there is no more.

use guest_kernel::Gva;
use guest_kernel::alloc::alloc::{Layout, alloc, dealloc, realloc};
use guest_kernel::alloc::collections::{BTreeMap, VecDeque};
use guest_kernel::guest_test;
use guest_kernel::memory::paging::{AddressSpace, Rights};
use guest_kernel::memory::{HEAP, frames, heap};
use guest_kernel::prelude::*;
use shared_abi::addr::PAGE_SIZE;

#[guest_test(max_exits = 0)]
fn collections_work_without_an_exit() {
    let squares: Vec<u64> = (0..100).map(|n| n * n).collect();
    assert_eq!(squares.iter().sum::<u64>(), 328_350);
    assert_eq!(format!("{}-{:#x}", "a", 255), "a-0xff");
    let names: BTreeMap<_, _> = ["one", "two", "three"].into_iter().zip(1..).collect();
    assert_eq!(names.get("two"), Some(&2));
    let mut queue: VecDeque<Box<u8>> = (0..10).map(Box::new).collect();
    queue.rotate_left(3);
    assert_eq!(queue.front().map(|first| **first), Some(3));
}

#[guest_test]
fn a_program_that_allocates_nothing_has_no_heap() {
    assert_eq!(heap::usage(), heap::Usage { in_use: 0, mapped: 0 });
}

#[guest_test]
fn the_heap_grows_with_what_is_on_it_and_takes_frames_for_it() {
    let free = frames::free_count();
    let small = Box::new(1_u8);
    let first = heap::usage();
    assert_eq!((first.in_use, first.mapped), (1, 16 * PAGE_SIZE));
    let large = Vec::<u8>::with_capacity(1 << 20);
    let second = heap::usage();
    assert_eq!(second.in_use, 1 + (1 << 20));
    assert!(second.mapped >= 1 << 20);
    let tables = free - frames::free_count() - second.mapped / PAGE_SIZE;
    assert!(tables <= 4, "{tables} page tables");
    drop((small, large));
    let again = Vec::<u8>::with_capacity(1 << 20);
    assert_eq!((heap::usage().mapped, again.len()), (second.mapped, 0), "what was freed is used again");
}

#[guest_test]
fn what_is_large_lies_in_large_pages() {
    let large = Vec::<u8>::with_capacity(5 << 20);
    let end = HEAP + heap::usage().mapped;
    let kernel = AddressSpace::kernel();
    let size_at = |gva| kernel.translate(Gva(gva)).map(|page| page.page_size);
    assert_eq!((size_at(HEAP), size_at(HEAP + (2 << 20))), (Some(2 << 20), Some(2 << 20)));
    assert_eq!((size_at(end - 1), size_at(end)), (Some(PAGE_SIZE), None));
    assert!(large.as_ptr() as u64 + (5 << 20) <= end);
}

#[guest_test]
fn the_heap_cannot_be_executed() {
    let place = Box::new(0_u64);
    let gva = Gva(&raw const *place as u64);
    assert!((HEAP..HEAP + (1 << 30)).contains(&gva.0));
    let mapping = AddressSpace::kernel().translate(gva).expect("it is mapped");
    assert_eq!(mapping.rights, Rights::READ_WRITE);
}

/// A block as the random load has it.
struct Block {
    memory: *mut u8,
    layout: Layout,
    fill: u8,
}

impl Block {
    fn new(layout: Layout, fill: u8) -> Self {
        // SAFETY: No layout of these tests has size 0.
        let memory = unsafe { alloc(layout) };
        assert!(!memory.is_null() && memory.addr().is_multiple_of(layout.align()), "{layout:?}");
        // SAFETY: The allocator gave so many bytes.
        unsafe { memory.write_bytes(fill, layout.size()) };
        Self { memory, layout, fill }
    }

    fn resize(&mut self, size: usize) {
        // SAFETY: The memory has this layout, and the new size is small and not 0.
        self.memory = unsafe { realloc(self.memory, self.layout, size) };
        let kept = size.min(self.layout.size());
        self.layout = Layout::from_size_align(size, self.layout.align()).expect("a small size");
        self.check(kept);
        // SAFETY: The allocator gave so many bytes.
        unsafe { self.memory.write_bytes(self.fill, size) };
    }

    fn check(&self, size: usize) {
        // SAFETY: The first `size` bytes have been written.
        let bytes = unsafe { core::slice::from_raw_parts(self.memory, size) };
        // First, last and some between: whoever oversteps starts at an end.
        let seen = bytes.iter().step_by(97).chain(bytes.last());
        assert!(seen.copied().all(|byte| byte == self.fill), "{:?} at {:?}", self.layout, self.memory);
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.check(self.layout.size());
        // SAFETY: The memory has this layout, and is given back once.
        unsafe { dealloc(self.memory, self.layout) };
    }
}

/// The seed is fixed, so a failure comes again.
#[guest_test]
fn blocks_of_random_size_alignment_and_life_stay_intact_and_all_come_back() {
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below) as usize
    };
    let mut blocks: Vec<Option<Block>> = (0..24).map(|_| None).collect();
    let before = heap::usage().in_use;
    for step in 0..400 {
        // Most are small, few large: as programs ask.
        let size = [16, 200, 200, 5000][next(4)];
        let size = 1 + next(size);
        let slot = next(24);
        match &mut blocks[slot] {
            Some(block) if next(3) == 0 => block.resize(size),
            Some(_) => blocks[slot] = None,
            None => {
                let layout = Layout::from_size_align(size, 1 << next(9)).expect("a small size");
                blocks[slot] = Some(Block::new(layout, step as u8));
            }
        }
    }
    blocks.iter_mut().for_each(|block| *block = None);
    assert_eq!(heap::usage().in_use, before);
}

#[guest_test]
fn what_cannot_be_reserved_is_an_error_for_who_asks() {
    let free = frames::free_count();
    let mut bytes: Vec<u8> = Vec::new();
    assert!(bytes.try_reserve(1 << 30).is_err());
    assert!(bytes.try_reserve(isize::MAX as usize).is_err());
    assert_eq!(frames::free_count(), free, "nothing is taken for what cannot be given");
    bytes.try_reserve(1 << 20).expect("1 MiB of 16");
    bytes.extend_from_slice(b"goes on");
    assert_eq!(bytes, b"goes on");
}

#[guest_test(
    should_panic,
    prints = "memory allocation of 1073741824 bytes failed\nthe heap was asked for 1073741824 bytes when "
)]
fn more_than_there_is_ends_in_a_sentence() {
    let _ = vec![1_u8; 1 << 30];
}

#[guest_test(should_panic, prints = " KiB of RAM were free: --memory gives more")]
fn a_heap_that_grows_for_ever_ends_in_a_sentence() {
    let mut all = Vec::new();
    loop {
        all.push(Vec::<u8>::with_capacity(300 << 10));
    }
}

#[guest_test(should_panic, prints = "has nothing to do with it\n")]
fn a_panic_after_a_shortage_that_was_handled_does_not_blame_the_heap() {
    assert!(Vec::<u8>::new().try_reserve(1 << 30).is_err());
    panic!("has nothing to do with it");
}
