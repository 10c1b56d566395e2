//! How a guest ends.

use core::hint::black_box;

use guest_kernel::hypercall::{Hypercall, call};
use guest_kernel::{guest_test, power};

#[guest_test(max_exits = 0)]
fn to_return_is_to_succeed() {}

#[guest_test(exit_code = 7, max_exits = 0)]
fn a_program_ends_with_its_own_code() {
    power::exit(7);
}

#[guest_test(exit_code = 8, max_exits = 0)]
fn a_call_ends_it_too() {
    let _ = call(Hypercall::Exit { code: 8 });
}

#[guest_test(should_panic, prints = "on purpose")]
fn a_panic_says_its_message() {
    panic!("on purpose");
}

#[guest_test(should_panic, prints = "guest-kernel/tests/selftest/ends.rs:")]
fn a_panic_says_its_place() {
    panic!();
}

#[guest_test(should_panic, prints = "attempt to add with overflow")]
fn an_overflow_panics() {
    black_box(black_box(u32::MAX) + black_box(1));
}

#[guest_test(should_panic, prints = "index out of bounds: the len is 3 but the index is 3")]
fn an_index_beyond_the_end_panics() {
    black_box(black_box(&[1, 2, 3][..])[black_box(3)]);
}

#[guest_test(should_panic, prints = "Err(\"a reason\")")]
fn a_returned_error_panics() -> Result<(), &'static str> {
    Err("a reason")
}
