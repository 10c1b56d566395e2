//! In-guest tests of what the kernel offers to programs: a file per subsystem.

#![cfg_attr(target_os = "none", no_std, no_main)]

mod console;

guest_kernel::test_main!();
