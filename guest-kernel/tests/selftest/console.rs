//! Text out.

use guest_kernel::{guest_test, println};

#[guest_test(max_exits = 1, prints = "hello")]
fn a_line_is_one_exit() {
    println!("hello");
}
