//! Asks the host by hand, as a first step to a hypercall of your own.
//!
//! # What you will see
//!
//! ```console
//! MonotonicTime is number 7, and the host answers …
//! ConsoleWrite is number 2 with 2 arguments: 0x…, 0x1a
//! this is what we asked for
//! and the host answers Ok(26)
//! RandomBytes, 1 GiB: Err(TooLarge)
//! RandomBytes, 8 bytes at address 8: Err(BadAddress)
//! ```
//!
//! # Where to look
//!
//! A hypercall is to a VMM what a system call is to a kernel: a number and arguments in registers, then an instruction
//! that leaves. Here it is an OUT to port 0xE8. What is wrong with a call is an answer, never the end of the guest.
//!
//! Contract: `shared-abi/src/hypercall.rs` is one enum, from which `shared-abi/src/define.rs` makes numbers, encoding and
//! decoding. Guest: `call` in `guest-kernel/src/hypercall.rs`. Host: one `match` in `vmm/src/hypercall/mod.rs`.
//!
//! # Exercises
//!
//! 1. Do what "Add your own hypercall" in CONTRIBUTING.md says: three edits, and `double` prints `42`.
//! 2. Call it from here, with a number that is too large: `u64::MAX`. The answer is `BadArgument`.
//! 3. Add the variant and leave out the host's answer: the compiler says ``error[E0004]: non-exhaustive patterns``. There
//!    is no number to get wrong, and nothing to register.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::hypercall::{Hypercall, call};
use guest_kernel::{Gva, entry, println};

entry!(main);

fn main() {
    let time = Hypercall::MonotonicTime;
    let registers = time.encode();
    let answer = call(time).expect("every host has a clock");
    println!("MonotonicTime is number {}, and the host answers {answer}", registers.number);

    let write = Hypercall::ConsoleWrite { text_gva: Gva(TEXT.as_ptr() as u64), text_size: TEXT.len() as u64 };
    let registers = write.encode();
    let [text, size, ..] = registers.arguments;
    println!(
        "ConsoleWrite is number {} with {} arguments: {text:#x}, {size:#x}",
        registers.number, registers.count
    );
    println!("and the host answers {:?}", call(write));

    for (what, buffer_gva, buffer_size) in [("1 GiB", Gva(0), 1 << 30), ("8 bytes at address 8", Gva(8), 8)] {
        println!("RandomBytes, {what}: {:?}", call(Hypercall::RandomBytes { buffer_gva, buffer_size }));
    }
}

const TEXT: &str = "this is what we asked for\n";
