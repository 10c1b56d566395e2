//! Interrupts: where the controllers are, and what presses which line.
//!
//! ```text
//! host                                                                      guest
//! a thread ─► IrqLine ─► pin ┌──────────┐  message   ┌────────────┐  vector
//!                            │ I/O APIC │ ─────────► │ local APIC │ ────────► gate in the IDT
//!                 24 pins    └──────────┘            └────────────┘
//!                            0xFEC0_0000              0xFEE0_0000, or MSRs (x2APIC); one for each CPU, with a timer
//! ```
//!
//! The local APICs are KVM's and the I/O APIC is the VMM's (`vmm/src/devices/ioapic.rs`). Both are there for guests that
//! [need](crate::needs) them, and where [`BootInfo`](crate::BootInfo) says so.
//!
//! Guest side: `guest-kernel/src/interrupts.rs`. Host side: `vmm/src/interrupts.rs`.

use crate::addr::{Gpa, PAGE_SIZE};
use crate::layout;

/// The registers of the local APIC of the CPU that looks (Intel SDM vol. 3A, 12.4.1).
pub const LOCAL_APIC: Gpa = Gpa(0xFEE0_0000);
/// The registers of the I/O APIC (Intel 82093AA data sheet, 3.1).
pub const IO_APIC: Gpa = Gpa(0xFEC0_0000);
/// Bytes of each, from where it starts.
pub const REGISTERS_SIZE: u64 = PAGE_SIZE;

/// How many lines lead into the I/O APIC.
pub const PINS: usize = 24;

/// The button: whoever runs the machine presses it (`vmm run --button`). On a PC the keyboard has this pin.
pub const BUTTON: u8 = 1;
/// Pressed once when there is console input, or its end, after a read has found none
/// ([`WouldBlock`](crate::HypercallError::WouldBlock)). On a PC the first serial port has this pin.
pub const CONSOLE_INPUT: u8 = 4;
/// Pressed again and again by the host's clock (`vmm run --tick 10ms`). On a PC the real-time clock has this pin.
pub const TICK: u8 = 8;

const _: () = assert!(LOCAL_APIC.0 > layout::CONSOLE_COALESCED_MMIO.0 && LOCAL_APIC.0 < layout::HIGH_RAM.0);
const _: () = assert!((BUTTON as usize) < PINS && (CONSOLE_INPUT as usize) < PINS && (TICK as usize) < PINS);
