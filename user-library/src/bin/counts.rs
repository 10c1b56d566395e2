//! Counts: writes the numbers up to its argument into the pipe that is handle 1, eight bytes each.

#![cfg_attr(target_os = "none", no_std, no_main)]

use user_library::calls::{argument, write_all};
use user_library::{entry, println};

entry!(main);

const PIPE: u64 = 1;

fn main() {
    let last = argument();
    for number in 1..=last {
        write_all(PIPE, &number.to_le_bytes()).expect("somebody reads");
    }
    println!("counts: that was {last}");
}
