//! A planted bug: the test of the fuzzer. It is reached by a few changes, each of which leads a step further.

use crate::edges::mark;

/// What triggers it.
pub const TRIGGER: &[u8] = b"Duet!";

/// Panics when the input starts with [`TRIGGER`].
pub(super) fn run(input: &[u8]) {
    assert!(!leads_to_trigger(input), "the planted bug");
}

/// Takes the process down instead.
pub(super) fn abort(input: &[u8]) {
    if leads_to_trigger(input) {
        std::process::abort();
    }
}

/// Does not end instead.
pub(super) fn hang(input: &[u8]) {
    while leads_to_trigger(input) {
        std::thread::yield_now();
    }
}

/// Whether the input triggers it; tells how much of it is right.
fn leads_to_trigger(input: &[u8]) -> bool {
    let right = TRIGGER.iter().zip(input).take_while(|(wanted, byte)| wanted == byte).count();
    (0..=right).for_each(mark);
    is_trigger(input)
}

/// Whether the input triggers it.
#[must_use]
pub fn is_trigger(input: &[u8]) -> bool {
    input.starts_with(TRIGGER)
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![b"nothing to do with it".to_vec()]
}
