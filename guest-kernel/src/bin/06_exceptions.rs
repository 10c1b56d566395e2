//! Survives what a CPU cannot do, and then does not: a report with a backtrace, made by the host.
//!
//! # What you will see
//!
//! ```console
//! #DE (divide error): RIP is 0x…, let us skip that
//! 7 / 0 is 7, for a kernel that skips its divisions
//! #UD (invalid opcode): RIP is 0x…, let us skip that
//! an instruction that does not exist was skipped
//! vmm: the guest died: #UD: invalid opcode: …, in … at …
//! …
//! backtrace:
//!    0  guest_kernel::cpu::provoke::invalid_opcode at guest-kernel/src/cpu/provoke.rs:…
//!    1  _06_exceptions::inner at guest-kernel/src/bin/06_exceptions.rs:…
//!    2  _06_exceptions::outer at guest-kernel/src/bin/06_exceptions.rs:…
//!    3  _06_exceptions::main at guest-kernel/src/bin/06_exceptions.rs:…
//! …
//! ```
//!
//! # Where to look
//!
//! Guest: the CPU finds the handler by a table, `guest-kernel/src/cpu/idt.rs`, and arrives in
//! `guest-kernel/src/exceptions/entry.rs`, where the registers are saved and put back. `guest-kernel/src/exceptions.rs`
//! calls the function below. A fault leaves RIP at the instruction that could not be completed; so whoever returns from
//! the handler tries it again, unless he moves RIP.
//!
//! Host: nothing, as long as the guest helps itself. Without a handler the guest tells the host, which is
//! `vmm/src/hypercall/last_words.rs`. The host reads the stack, the image and its debug information, and says who
//! called whom (`vmm/src/debug/backtrace/mod.rs`). The guest pays nothing for that.
//!
//! # Exercises
//!
//! 1. Take `exceptions::on(Vector::DivideError, …)` out. The host says `the guest died: #DE: divide error`.
//! 2. Have `skip_it` return `Next::Resume` without skipping anything. Where does it end? `--timeout 1s` helps: `the guest
//!    was stopped after its time limit`.
//! 3. Put `without-idt` before a deed of the probe: `cargo xtask run probe -- without-idt read-null`. Without the table
//!    a first exception raises a second and a third, and the machine is at its end: a triple fault.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::cpu::provoke;
use guest_kernel::exceptions::{self, Frame, Next, Vector};
use guest_kernel::{entry, println};

entry!(main);

fn main() {
    exceptions::on(Vector::DivideError, skip_it);
    let quotient = provoke::divide(7, 0);
    println!("7 / 0 is {quotient}, for a kernel that skips its divisions");

    exceptions::on(Vector::InvalidOpcode, skip_it);
    provoke::invalid_opcode();
    println!("an instruction that does not exist was skipped");

    exceptions::on_default(Vector::InvalidOpcode);
    outer();
}

fn skip_it(frame: &mut Frame) -> Next {
    println!("{frame}: RIP is {:#x}, let us skip that", frame.rip);
    frame.skip()
}

#[inline(never)]
fn outer() {
    inner();
    println!("nobody prints this");
}

#[inline(never)]
fn inner() {
    provoke::invalid_opcode();
    println!("nor this");
}
