//! The map of the 256 vectors: who arrives at which gate of the [IDT](super::idt).
//!
//! ```text
//! 0x00 ┌ exceptions        the CPU's own (`Vector`)
//! 0x20 ├ pins              the 24 lines of the I/O APIC, in order
//! 0x38 ├ free              for messages (MSI) and a program's own
//! 0x80 ├ system calls      `int 0x80`
//! 0x81 ├ free
//! 0xE0 ├ the timer         of each local APIC
//! 0xE1 ├ errors            of each local APIC
//! 0xE2 ├ free
//! 0xF0 ├ between CPUs      IPIs
//! 0xFF └ spurious          an interrupt that was gone when the CPU asked for its vector
//! ```
//!
//! The higher half byte is the priority class: of two interrupts that wait, the CPU takes the higher one first (Intel SDM
//! vol. 3A, 12.8.3). Messages between CPUs come before the timer, and that before devices.

use shared_abi::exception::VECTORS;
use shared_abi::interrupts::PINS;

/// How many vectors there are.
pub const COUNT: usize = 256;

/// The vector of pin 0.
pub const PIN_0: u8 = 0x20;
/// The first vector that is free for messages and programs; the last is [`SYSTEM_CALL`] - 1.
pub const FREE: u8 = PIN_0 + PINS as u8;
/// `int 0x80`.
pub const SYSTEM_CALL: u8 = 0x80;
/// The local timer.
pub const TIMER: u8 = 0xE0;
/// The local APIC has seen an error.
pub const ERROR: u8 = 0xE1;
/// The first vector for messages between CPUs.
pub const IPI: u8 = 0xF0;
/// Behind the last of them.
pub const IPI_END: u8 = 0xFF;
/// A spurious interrupt: nothing was there.
pub const SPURIOUS: u8 = 0xFF;

/// The vector of a pin.
#[must_use]
pub const fn of_pin(pin: u8) -> u8 {
    PIN_0 + pin
}

const _: () = assert!(PIN_0 as usize == VECTORS && FREE < SYSTEM_CALL && SYSTEM_CALL < TIMER && ERROR < IPI);
// Older CPUs set the low four bits by themselves (Intel SDM vol. 3A, 12.9).
const _: () = assert!(SPURIOUS & 0xF == 0xF);
