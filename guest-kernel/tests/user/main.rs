//! In-guest tests of user mode: what a program may do, what it may not, and that the kernel goes on whatever it does.
//!
//! Most programs here are a few bytes of machine code, so that each does one thing and nothing else.

#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

mod calls;
mod chance;
mod code;
mod crimes;
mod memory;
mod pipes;
mod turns;

guest_kernel::test_main!();
