//! Adds: reads numbers from the pipe that is handle 1 until it ends, and says what they come to.

#![cfg_attr(target_os = "none", no_std, no_main)]

use user_library::calls::read;
use user_library::{entry, println};

entry!(main);

const PIPE: u64 = 1;

fn main() {
    let (mut count, mut sum) = (0_u64, 0_u64);
    let (mut bytes, mut filled) = ([0; 64], 0);
    loop {
        match read(PIPE, &mut bytes[filled..]).expect("there is a pipe") {
            0 => break,
            more => filled += more,
        }
        // A pipe carries bytes: what arrives together need not have been sent together.
        let whole = filled / 8 * 8;
        for number in bytes[..whole].chunks_exact(8) {
            count += 1;
            sum += u64::from_le_bytes(number.try_into().expect("eight bytes"));
        }
        bytes.copy_within(whole..filled, 0);
        filled -= whole;
    }
    println!("adds: {count} numbers, together {sum}");
}
