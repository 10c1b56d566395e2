//! Prints one line: the smallest program.
//!
//! # What you will see
//!
//! ```console
//! hello from the guest
//! ```
//!
//! # Where to look
//!
//! Guest: `println_raw!` in `guest-kernel/src/console.rs` ends in `outb` to port 0xE9 (`guest-kernel/src/cpu/port.rs`).
//! Each byte leaves the machine once. Host: the exit arrives in `vmm/src/run_loop.rs` and is answered by
//! `vmm/src/devices/debug_console.rs`.
//!
//! # Exercises
//!
//! 1. Print your name after the greeting.
//! 2. Make it `println!`: the same text in one exit. `vmm/src/hypercall/console.rs` answers it.
//! 3. End with exit code 7: `guest_kernel::power::exit(7)`. `echo $?` after `cargo xtask run` says 7.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::{entry, println_raw};

entry!(main);

fn main() {
    println_raw!("hello from the guest");
}
