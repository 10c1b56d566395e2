//! Runs programs of 1974: an 8080 in software, with as much of CP/M as they need.
//!
//! # What you will see
//!
//! ```console
//! 8080: hello from 1974
//! 8080: the self-test has passed
//! ```
//!
//! # Where to look
//!
//! Guest: `guest-kernel/src/i8080/mod.rs` is the CPU: fetch a byte, look what it means, do it, again. That is what the
//! silicon does, what KVM does with an instruction that it must emulate, and what the VMM's loop does with exits.
//! `guest-kernel/src/i8080/cpm.rs` is the system around it, and `guest-kernel/src/i8080/programs.rs` has the programs, byte
//! by byte. Host: it sees the lines that are printed, and nothing of an 8080.
//!
//! No CPU of Intel's or AMD's has such a mode. NEC's V20 and V30 had one, beside the 8086's: `BRKEM` entered it, `RETEM`
//! left it.
//!
//! # Exercises
//!
//! 1. Change the text of `HELLO`. Why does the program not have to be assembled again?
//! 2. Function 1 of CP/M reads a character into A. Let `cpm::run` answer it, from `guest_kernel::console`.
//! 3. How many instructions a second does this 8080 execute? The first one did half a million.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::i8080::cpm::{self, Computer, End};
use guest_kernel::i8080::programs::{HELLO, SELF_TEST};
use guest_kernel::{entry, print, println};

entry!(main);

/// Far more than a program of here executes.
const LIMIT: u64 = 100_000;

fn main() {
    let mut memory = [0; 0x1_0000];
    for program in [HELLO, SELF_TEST] {
        let print = |byte| print!("{}", char::from(byte));
        match cpm::run(program, &mut Computer { memory: &mut memory, print }, LIMIT) {
            End::Done => {}
            end => println!("8080: the program has not ended well: {end:?}"),
        }
    }
}
