//! Stacks: memory to its last byte, and below it nothing.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kernel::cpu::provoke;
use guest_kernel::exceptions::{self, Vector};
use guest_kernel::hypercall::translate;
use guest_kernel::memory::paging::MapError;
use guest_kernel::memory::stack::{MAX_SIZE, Stack};
use guest_kernel::memory::{STACKS, frames};
use guest_kernel::prelude::*;
use guest_kernel::{Gva, guest_test};
use shared_abi::addr::PAGE_SIZE;

const PLACE: u64 = MAX_SIZE + PAGE_SIZE;

#[guest_test]
fn a_stack_is_mapped_from_its_start_to_its_end_and_not_below() {
    let stack = Stack::allocate(3 * PAGE_SIZE - 1).expect("a few frames");
    assert_eq!((stack.size(), stack.end()), (3 * PAGE_SIZE, Gva(STACKS + PLACE)));
    let writable = |gva| translate(Gva(gva)).map(|page| (page.writable, page.executable));
    assert_eq!(writable(stack.start().0), Some((1, 0)));
    assert_eq!(writable(stack.end().0 - 1), Some((1, 0)));
    assert_eq!((writable(stack.start().0 - 1), writable(stack.end().0)), (None, None));
}

#[guest_test(max_exits = 0)]
fn work_runs_on_a_stack_and_comes_back() {
    static PLACE: AtomicU64 = AtomicU64::new(0);
    extern "C" fn note() {
        let local = 0_u8;
        PLACE.store(&raw const *black_box(&local) as u64, Ordering::Relaxed);
    }
    let mut stack = Stack::allocate(2 * PAGE_SIZE).expect("frames");
    for _ in 0..2 {
        stack.run(note);
        assert!((stack.start().0..stack.end().0).contains(&PLACE.swap(0, Ordering::Relaxed)));
    }
}

#[guest_test]
fn the_largest_stack_has_a_guard_too() {
    let stacks = [(); 2].map(|()| Stack::allocate(MAX_SIZE).expect("2 MiB of 16"));
    for stack in &stacks {
        assert_eq!(translate(Gva(stack.start().0 - 1)), None);
    }
    assert_eq!(stacks[1].start().0 - stacks[0].end().0, PAGE_SIZE);
    // To unmap them page by page takes a kernel that is not optimised a second.
    core::mem::forget(stacks);
}

#[guest_test]
fn a_stack_that_is_dropped_leaves_its_place_and_its_frames() {
    // The page tables stay.
    drop(Stack::allocate(MAX_SIZE));
    let free = frames::free_count();
    let mut stacks: Vec<Stack> = (0..3).map(|_| Stack::allocate(2 * PAGE_SIZE).expect("frames")).collect();
    let place = stacks[1].end();
    drop(stacks.remove(1));
    let again = Stack::allocate(PAGE_SIZE).expect("frames");
    assert_eq!(again.end(), place);
    drop((stacks, again));
    assert_eq!(frames::free_count() + guest_kernel::memory::heap::usage().mapped / PAGE_SIZE + 3, free);
}

#[guest_test]
fn without_frames_there_is_no_stack_and_nothing_is_lost() {
    drop(Stack::allocate(PAGE_SIZE));
    while frames::free_count() > 2 {
        let count = (frames::free_count() - 2).min(64);
        let run = frames::allocate_contiguous(count, PAGE_SIZE);
        core::mem::forget(run.or_else(|| frames::allocate_contiguous(1, PAGE_SIZE)));
    }
    assert_eq!(Stack::allocate(3 * PAGE_SIZE).err(), Some(MapError::OutOfFrames));
    assert_eq!(frames::free_count(), 2);
    assert_eq!(Stack::allocate(2 * PAGE_SIZE).map(|stack| stack.size()), Ok(2 * PAGE_SIZE));
}

#[guest_test(max_exits = 0)]
fn the_first_byte_below_a_stack_is_a_page_fault() {
    let stack = Stack::allocate(PAGE_SIZE).expect("a frame");
    exceptions::on(Vector::PageFault, |frame| {
        assert_eq!(frame.fault_address(), Some(Gva(STACKS + PLACE - PAGE_SIZE - 1)));
        frame.skip()
    });
    black_box(provoke::read(Gva(stack.start().0 - 1)));
}
