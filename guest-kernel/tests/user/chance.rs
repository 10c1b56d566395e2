//! Programs made by chance: whatever stands in a program, the kernel goes on, and has its memory back.
//!
//! The seeds are fixed, so a failure repeats itself; it names the program. `tests/user_mode.rs` tries many more.

use guest_kernel::guest_test;
use guest_kernel::memory::frames;
use guest_kernel::user::chance;

#[guest_test(timeout_ms = 60000)]
fn no_bytes_end_the_kernel() {
    drop(chance::run_bytes(0));
    let free = frames::free_count();
    (1..12).for_each(|seed| drop(chance::run_bytes(seed)));
    assert_eq!(frames::free_count(), free);
}

#[guest_test(timeout_ms = 60000)]
fn no_calls_end_the_kernel() {
    drop(chance::run_calls(0));
    let free = frames::free_count();
    (1..6).for_each(|seed| drop(chance::run_calls(seed)));
    assert_eq!(frames::free_count(), free);
}
