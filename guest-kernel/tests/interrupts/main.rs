//! In-guest tests of interrupts and time: an image of its own, because a machine with interrupt controllers is another
//! machine.

#![cfg_attr(target_os = "none", no_std, no_main)]

mod apic;
mod smp;
mod task;
mod time;

guest_kernel::test_main!();
