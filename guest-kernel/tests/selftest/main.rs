//! In-guest tests of what the kernel offers to programs: a file per subsystem.
//!
//! `cargo xtask test --guest` runs them, each in a machine of its own.

#![cfg_attr(target_os = "none", no_std, no_main)]

mod arguments;
mod boot_info;
mod channel;
mod console;
mod ends;
mod exceptions;
mod faults;
mod files;
mod frames;
mod heap;
mod hypercalls;
mod memory;
mod paging;
mod ports;
mod smp;
mod stacks;

guest_kernel::test_main!();
