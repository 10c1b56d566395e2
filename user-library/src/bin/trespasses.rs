//! Does what a program may not: its argument chooses the crime.

#![cfg_attr(target_os = "none", no_std, no_main)]

use user_library::abi::{CONSOLE, IMAGE, SystemCall};
use user_library::calls::{argument, call};
use user_library::{crimes, entry, println};

entry!(main);

/// Where the kernel's image starts.
const KERNEL: u64 = 0x10_0000;

fn main() {
    match argument() {
        0 => println!("{:?}", call(SystemCall::Write, [CONSOLE, KERNEL, 16])),
        1 => println!("the kernel starts with {}", crimes::read(KERNEL)),
        2 => crimes::write(IMAGE, 0x90),
        3 => crimes::halt(),
        4 => crimes::jump(KERNEL),
        5 => println!("the stack has no end: {}", crimes::overflow(0)),
        _ => {}
    }
}
