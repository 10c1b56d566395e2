//! Shows what lies where in memory, and takes some of what is free.
//!
//! # What you will see
//!
//! ```console
//! 0x0..0x1000000 RAM: 16 MiB
//! 0x0..0x1000 nothing: page 0 is never mapped, so a null pointer faults
//! 0x1000..0x2000 what the host has told us
//! 0x40000..0x80000 the stack: a local variable is at 0x7…
//! 0x80000..0x8…000 page tables
//! 0x100000..0x1…000 this program: `main` is at 0x10…
//! frames of 4 KiB: … of … are free
//! one frame: 0x1…000, and its first byte is 0
//! 2 MiB in one piece: 0xe00000
//! frames of 4 KiB: … of … are free
//! both are dropped: all … are free
//! ```
//!
//! # Where to look
//!
//! A machine has RAM and nobody who says what it is for. The VMM puts the program, a stack and page tables there and
//! tells the kernel by a page of numbers, `BootInfo`. All else is the kernel's to give out.
//!
//! Guest: `guest-kernel/src/memory/frames/mod.rs` gives out RAM by 4 KiB, and prepares nothing for that: a guest of
//! 64 GiB starts as fast as this one. Host: `vmm/src/boot/guest_map.rs` plans, `vmm/src/boot/boot_info.rs` tells.
//! The plan is drawn in `shared-abi/src/layout.rs`.
//!
//! # Exercises
//!
//! 1. `cargo xtask run 04_memory_map --memory 64G`. RAM ends at `0xc0000000` and goes on behind the devices: print the
//!    second region of `info.ram`, too. It is `0x100000000..0x1040000000`.
//! 2. `cargo xtask map 04_memory_map` shows the same as the host sees it, with the rights of every page.
//! 3. Use `core::mem::forget(frame)` in place of the first `drop`: in the end one frame less is free, and nobody will
//!    ever have it again.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::memory::frames;
use guest_kernel::{boot_info, entry, println};
use shared_abi::layout;

entry!(main);

const MIB: u64 = 1 << 20;

fn main() {
    let info = boot_info();
    let [ram, _] = info.ram;
    println!("{:#x}..{:#x} RAM: {} MiB", ram.start, ram.end, ram.size() / MIB);
    println!("0x0..{} nothing: page 0 is never mapped, so a null pointer faults", layout::BOOT_INFO);
    println!("{}..{} what the host has told us", layout::BOOT_INFO, layout::ARGUMENTS);
    let local = 0;
    println!(
        "{}..{} the stack: a local variable is at {:p}",
        layout::STACK,
        layout::STACK_END,
        &raw const local
    );
    println!("{:#x}..{:#x} page tables", info.page_tables.start, info.page_tables.end);
    println!("{:#x}..{:#x} this program: `main` is at {:p}", info.image.start, info.image.end, main as fn());

    tell_frames();
    let frame = frames::allocate().expect("a frame");
    println!("one frame: {}, and its first byte is {}", frame.gpa(), frame.bytes()[0]);
    let run = frames::allocate_contiguous(512, 2 * MIB).expect("2 MiB");
    println!("2 MiB in one piece: {}", run.gpa());
    tell_frames();
    drop(frame);
    drop(run);
    println!("both are dropped: all {} are free", frames::free_count());
}

fn tell_frames() {
    println!("frames of 4 KiB: {} of {} are free", frames::free_count(), frames::total_count());
}
