//! Survives what a CPU cannot do: a division by zero, a read where nothing is mapped.
//!
//! # What you will see
//!
//! ```console
//! #DE (divide error): RIP is 0x…, let us skip that
//! 7 / 0 is 7, for a kernel that skips its divisions
//! #PF (page fault) at 0xc0000000: RIP is 0x…, let us map it and try again
//! the device at 0xc0000000 says 0
//! it says 0 again, and nobody noticed
//! ```
//!
//! # Where to look
//!
//! Guest: the CPU finds the handler by a table, `guest-kernel/src/cpu/idt.rs`, and arrives in
//! `guest-kernel/src/exceptions/entry.rs`, where the registers are saved and put back. `guest-kernel/src/exceptions.rs`
//! calls the two functions below. A fault leaves RIP at the instruction that could not be completed; so whoever
//! returns from the handler tries it again. That is how operating systems give memory to programs: when they touch it.
//!
//! Host: nothing, as long as the guest helps itself. Without a handler the guest tells the host, which is
//! `vmm/src/hypercall/last_words.rs`, and dies.
//!
//! # Exercises
//!
//! 1. Take `exceptions::on(Vector::DivideError, …)` out. The host says `the guest died: #DE: divide error`.
//! 2. Have `map_it` return `Next::Resume` without mapping anything. Where does it end? `--timeout 1s` helps.
//! 3. Read address 8 behind all this: `map_it` maps the wrong thing, and again. Return `Next::Report` unless
//!    `frame.fault_address()` is the device's.
//! 4. Put `without-idt` before a deed of the probe: `cargo xtask run probe -- without-idt read-null`. Without the table
//!    a first exception raises a second and a third, and the machine is at its end: a triple fault.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::cpu::provoke;
use guest_kernel::exceptions::{self, Frame, Next, Vector};
use guest_kernel::{Gva, device_memory, entry, println};
use shared_abi::layout;

entry!(main);

fn main() {
    exceptions::on(Vector::DivideError, skip_it);
    let quotient = provoke::divide(7, 0);
    println!("7 / 0 is {quotient}, for a kernel that skips its divisions");

    exceptions::on(Vector::PageFault, map_it);
    let device = Gva(layout::CONSOLE_MMIO.0);
    println!("the device at {device} says {}", provoke::read(device));
    println!("it says {} again, and nobody noticed", provoke::read(device));
}

fn skip_it(frame: &mut Frame) -> Next {
    println!("{frame}: RIP is {:#x}, let us skip that", frame.rip);
    frame.skip()
}

fn map_it(frame: &mut Frame) -> Next {
    println!("{frame}: RIP is {:#x}, let us map it and try again", frame.rip);
    match device_memory::map_hole() {
        Ok(()) => Next::Resume,
        Err(_) => Next::Report,
    }
}
