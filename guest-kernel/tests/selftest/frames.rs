//! Frames: all of RAM can be had, once, and comes back.

use core::mem::forget;

use guest_kernel::memory::frames::{self, FRAME_SIZE, Frame, FrameRun};
use guest_kernel::{Gpa, boot_info, guest_test};
use shared_abi::addr::PAGE_SIZE;
use shared_abi::layout;

const MIB: u64 = 1 << 20;

#[guest_test(max_exits = 0)]
fn a_frame_is_zero_at_first_and_keeps_what_is_written() {
    let mut frame = frames::allocate_zeroed().expect("a frame");
    assert!(frame.bytes().iter().step_by(512).all(|&byte| byte == 0));
    frame.bytes_mut()[FRAME_SIZE - 1] = 42;
    assert_eq!(frame.bytes()[FRAME_SIZE - 1], 42);
}

#[guest_test]
fn a_frame_that_was_used_is_cleared_when_zeros_are_wanted() {
    let mut frame = frames::allocate().expect("a frame");
    let gpa = frame.gpa();
    frame.bytes_mut().fill(0xFF);
    drop(frame);
    let again = frames::allocate_zeroed().expect("a frame");
    assert_eq!(again.gpa(), gpa, "what came back last goes out first");
    assert!(again.bytes().iter().step_by(64).all(|&byte| byte == 0));
}

#[guest_test]
fn frames_are_none_of_what_is_in_use() {
    let info = boot_info();
    let frame = frames::allocate().expect("a frame").gpa().0;
    let run = frames::allocate_contiguous(512, 2 * MIB).expect("2 MiB").gpa().0;
    for gpa in [frame, run] {
        assert!(gpa >= layout::KERNEL.0 && gpa < info.ram[0].end);
        assert!(!(info.image.start..info.image.end).contains(&gpa));
        assert!(!(info.page_tables.start..info.page_tables.end).contains(&gpa));
    }
    let all = info.ram[0].size() - layout::KERNEL.0 - info.image.size();
    let tables = if info.page_tables.start < layout::KERNEL.0 { 0 } else { info.page_tables.size() };
    assert_eq!(frames::total_count(), (all - tables) / PAGE_SIZE);
    assert_eq!(frames::free_count(), frames::total_count(), "what is dropped is free again");
}

/// In a chain through their own memory, as there is no heap to keep them in.
#[guest_test]
fn all_frames_can_be_had_once_and_come_back() {
    let free = frames::free_count();
    // Runs take most of it, so that few frames are left to be had one by one.
    let mut runs = 0;
    while let Some(run) = frames::allocate_contiguous(64, PAGE_SIZE) {
        runs += run.count();
        forget(run);
    }
    let (mut last, mut count) = (0, 0);
    while let Some(mut frame) = frames::allocate() {
        frame.bytes_mut()[..8].copy_from_slice(&u64::to_le_bytes(last));
        last = frame.into_gpa().0;
        count += 1;
    }
    assert_eq!((runs + count, frames::free_count()), (free, 0));
    assert!(frames::allocate_contiguous(1, PAGE_SIZE).is_none());

    while last != 0 {
        // SAFETY: The address is of a frame that the loop above has given up, once.
        let frame = unsafe { Frame::from_gpa(Gpa(last)) };
        last = frame.bytes().first_chunk().map_or(0, |next| u64::from_le_bytes(*next));
    }
    assert_eq!(frames::free_count(), count);
}

#[guest_test]
fn a_run_has_the_alignment_that_was_asked_for_and_comes_back_whole() {
    let free = frames::free_count();
    for align in [4 << 10, 64 << 10, 2 * MIB] {
        let mut run = frames::allocate_contiguous(512, align).expect("2 MiB");
        assert!(run.gpa().0.is_multiple_of(align));
        run.bytes_mut()[(2 << 20) - 1] = 1;
        assert_eq!(frames::free_count(), free - 512);
    }
    assert_eq!(frames::free_count(), free);
}

#[guest_test]
fn runs_that_cannot_be_are_refused() {
    assert_eq!(frames::allocate_contiguous(frames::free_count() + 1, PAGE_SIZE), None);
    assert_eq!(frames::allocate_contiguous(u64::MAX, PAGE_SIZE), None);
    assert_eq!(frames::allocate_contiguous(1, 1 << 63), None);
}

#[guest_test(should_panic, prints = "was freed twice")]
fn a_frame_that_is_freed_twice_is_caught() {
    let gpa = frames::allocate().expect("a frame").into_gpa();
    // SAFETY: None, the second time: this is the crime. The frame is free, and nothing uses it.
    let twice = [(); 2].map(|()| unsafe { Frame::from_gpa(gpa) });
    drop(twice);
}

#[guest_test(should_panic, prints = "was freed twice")]
fn a_frame_that_is_freed_before_anybody_had_it_is_caught() {
    let last = Gpa(boot_info().ram[0].end - PAGE_SIZE);
    // SAFETY: None: this is the crime. The frame is free, and nothing uses it.
    drop(unsafe { Frame::from_gpa(last) });
}

#[guest_test(should_panic, prints = "was freed twice")]
fn a_run_that_overlaps_what_is_free_is_caught() {
    let run = frames::allocate_contiguous(4, PAGE_SIZE).expect("a run");
    let (start, count) = (run.gpa(), run.count());
    drop(run);
    // SAFETY: None: this is the crime.
    drop(unsafe { FrameRun::from_gpa(start, count) });
}

#[guest_test(should_panic, prints = "is no frame of free RAM")]
fn a_stack_is_not_freed() {
    // SAFETY: None: this is the crime, and is refused.
    frames::free(unsafe { Frame::from_gpa(layout::STACK) });
}

#[guest_test(should_panic, prints = "was written to after it was freed")]
fn a_write_to_a_frame_that_is_free_is_noticed() {
    let mut frame = frames::allocate().expect("a frame");
    let memory = frame.bytes_mut().as_mut_ptr();
    drop(frame);
    // SAFETY: None: this is the crime. Nobody else uses the frame.
    unsafe { memory.write_volatile(1) };
    let _ = frames::allocate();
}
