//! Uses a heap: `Vec`, `String`, `BTreeMap`, and what happens when there is no more.
//!
//! # What you will see
//!
//! ```console
//! before: 0 bytes in use, 0 KiB mapped
//! [1, 4, 9, 16, 25]
//! apple: 2, pear: 3, quince: 1
//! after: … bytes in use, 64 KiB mapped
//! a vector lies at 0xffff8000…
//! 1 GiB: no, as only … KiB of RAM are free
//! 1 MiB: yes, and … KiB are mapped
//! dropped: 0 bytes in use, … KiB mapped
//! ```
//!
//! # Where to look
//!
//! `Vec` asks for memory whose size nobody knows beforehand. `std` would ask the operating system; here we are that.
//! The heap is a stretch of addresses of which the beginning is mapped. When it is full, frames are mapped behind it.
//!
//! Guest: `guest-kernel/src/memory/heap.rs` is Rust's `#[global_allocator]`; which bytes are free is kept by the crate
//! talc. Host: nothing. It gives RAM when a page is first touched (`vmm/src/memory.rs`), which the guest cannot notice.
//!
//! # Exercises
//!
//! 1. Write `let all = vec![0_u8; 1 << 30];` at the end. The guest panics, exit code 101, and says `memory allocation of
//!    1073741824 bytes failed`, what was free, and what to do.
//! 2. Run it with `--release --memory 2G`. Now it says `1 GiB: yes, and 1048… KiB are mapped`.
//! 3. `core::mem::forget` the 1 MiB: the last line has `1048576 bytes in use`. This is what a leak is.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::alloc::collections::BTreeMap;
use guest_kernel::memory::{frames, heap};
use guest_kernel::prelude::*;
use guest_kernel::{entry, println};

entry!(main);

fn main() {
    tell("before");
    let squares: Vec<u32> = (1..=5).map(|n| n * n).collect();
    println!("{squares:?}");
    let mut basket = BTreeMap::new();
    for fruit in ["pear", "apple", "pear", "quince", "apple", "pear"] {
        *basket.entry(fruit).or_insert(0) += 1;
    }
    let counts: Vec<String> = basket.iter().map(|(fruit, count)| format!("{fruit}: {count}")).collect();
    println!("{}", counts.join(", "));
    tell("after");
    println!("a vector lies at {:p}", squares.as_ptr());

    for (name, size) in [("1 GiB", 1 << 30), ("1 MiB", 1 << 20)] {
        let mut bytes = Vec::<u8>::new();
        match bytes.try_reserve_exact(size) {
            Ok(()) => println!("{name}: yes, and {} KiB are mapped", heap::usage().mapped >> 10),
            Err(_) => println!("{name}: no, as only {} KiB of RAM are free", frames::free_count() * 4),
        }
    }
    drop((squares, basket, counts));
    tell("dropped");
}

fn tell(when: &str) {
    let heap::Usage { in_use, mapped } = heap::usage();
    println!("{when}: {in_use} bytes in use, {} KiB mapped", mapped >> 10);
}
