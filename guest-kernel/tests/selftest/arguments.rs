//! What was typed behind `--`; to a test, its own name.

use guest_kernel::hypercall::{Hypercall, call};
use guest_kernel::{Gva, arguments, boot_info, guest_test};

#[guest_test(max_exits = 0)]
fn the_first_argument_is_the_tests_name() {
    assert_eq!(arguments().next(), Some("arguments::the_first_argument_is_the_tests_name"));
}

#[guest_test(max_exits = 0)]
fn arguments_can_be_read_again_and_again() {
    assert_eq!(arguments().count(), arguments().count());
    assert_eq!(arguments().next(), arguments().next());
}

#[guest_test(max_exits = 1)]
fn the_call_tells_how_much_there_is_however_small_the_buffer() {
    let mut byte = 0xFF_u8;
    let answer = call(Hypercall::Arguments { buffer_gva: Gva(&raw mut byte as u64), buffer_size: 1 });
    assert_eq!(answer, Ok(boot_info().arguments.size()));
    assert_eq!(byte, b'a');
}
