//! Computes: does the work that its argument names, and writes result and duration into the pipe that is handle 1.

#![cfg_attr(target_os = "none", no_std, no_main)]

use user_library::calls::{argument, write_all};
use user_library::entry;
use user_library::work::{self, Work};

entry!(main);

const PIPE: u64 = 1;

fn main() {
    let work = Work::from_number(argument()).expect("the argument names a piece of work");
    let (result, duration) = work::timed(work);
    for word in [result, duration] {
        write_all(PIPE, &word.to_le_bytes()).expect("the kernel reads");
    }
}
