//! Text out, and what it costs.

use guest_kernel::console::DebugConsole;
use guest_kernel::hypercall::{HypercallError, console_read, console_try_read, console_write};
use guest_kernel::{guest_test, print, print_raw, println};

#[guest_test(max_exits = 0)]
fn printing_nothing_costs_nothing() {
    print!("");
}

/// Most of them are spent on formatting, which is not optimised in a debug build.
#[guest_test(max_instructions = 20_000)]
fn a_line_costs_some_thousand_instructions_at_most() {
    println!("hello {}", 1);
}

#[guest_test(max_exits = 1, prints = "hello\n")]
fn a_line_is_one_exit() {
    println!("hello");
}

#[guest_test(max_exits = 1, prints = "one 2 0x3\n")]
fn a_formatted_line_is_one_exit_too() {
    println!("one {} {:#x}", 2, 3);
}

#[guest_test(max_exits = 5, prints = "hello")]
fn a_raw_letter_is_one_exit() {
    print_raw!("hello");
}

#[guest_test(max_exits = 2)]
fn a_line_longer_than_the_buffer_is_two_exits() {
    println!("{:>300}{:>300}", "left", "right");
}

#[guest_test(max_exits = 1)]
fn a_debug_console_answers_at_its_port() {
    assert!(DebugConsole::is_present());
}

#[guest_test(max_exits = 1, prints = "\u{20AC}")]
fn text_is_utf_8_all_the_way() {
    print!("\u{20AC}");
}

#[guest_test(max_exits = 1)]
fn nobody_types() -> Result<(), HypercallError> {
    assert_eq!(console_read(&mut [0; 8])?, 0);
    Ok(())
}

#[guest_test(max_exits = 1)]
fn nobody_types_and_nobody_waits() -> Result<(), HypercallError> {
    assert_eq!(console_try_read(&mut [0; 8])?, 0);
    Ok(())
}

#[guest_test(max_exits = 1)]
fn writing_nothing_is_allowed() -> Result<(), HypercallError> {
    console_write(b"")
}
