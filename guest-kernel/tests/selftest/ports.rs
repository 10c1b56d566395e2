//! Port I/O: every access is an exit.

use guest_kernel::cpu::port;
use guest_kernel::guest_test;
use shared_abi::ports::{DEBUG_CONSOLE, DEBUG_CONSOLE_PRESENT, EXIT};

#[guest_test(max_exits = 1)]
fn a_byte_in_is_one_exit() {
    assert_eq!(port::inb(DEBUG_CONSOLE), DEBUG_CONSOLE_PRESENT);
}

#[guest_test(max_exits = 1, prints = "ab")]
fn two_bytes_out_are_one_exit() {
    port::outw(DEBUG_CONSOLE, u16::from_le_bytes(*b"ab"));
}

#[guest_test(max_exits = 1, prints = "abcd")]
fn four_bytes_out_are_one_exit() {
    port::outl(DEBUG_CONSOLE, u32::from_le_bytes(*b"abcd"));
}

#[guest_test(max_exits = 4, prints = "abcd")]
fn a_repeated_out_is_an_exit_an_element() {
    port::rep_outsb(DEBUG_CONSOLE, b"abcd");
}

#[guest_test(exit_code = 9, max_exits = 0)]
fn one_byte_is_enough_for_an_exit_code() {
    port::outb(EXIT, 9);
}
