//! The contract between the VMM (host) and its guest kernels.
//!
//! Two programs that never link to each other meet here. What crosses the boundary is: guest RAM laid out as [`layout`]
//! draws it, one [`BootInfo`] the host writes before the first instruction, bytes on the I/O [`ports`], [`Hypercall`]s,
//! and [`exit_code`]s. What never crosses: Rust references, pointers that the other side would follow unchecked,
//! anything whose layout the compiler is free to choose. So this crate has no `unsafe`, no dependency and no `std`.
//!
//! Reading order: [`addr`], [`layout`], [`ports`], [`exit_code`], [`boot_info`], [`hypercall`] with [`call_types`] and
//! [`answer`], [`channel`], [`exception`], [`interrupts`], [`needs`], [`guest_test`]; then how both sides find out that they
//! were built against different versions of all this: [`contract`], [`define`].

#![no_std]
#![forbid(unsafe_code)]

pub mod addr;
pub mod answer;
pub mod boot_info;
pub mod call_types;
pub mod channel;
pub mod contract;
pub mod define;
pub mod exception;
pub mod exit_code;
pub mod guest_test;
pub mod hypercall;
pub mod interrupts;
pub mod layout;
pub mod needs;
pub mod ports;

pub use addr::{Gpa, Gva};
pub use boot_info::{BootInfo, RamRegion};
pub use exception::{ExceptionFrame, Vector};
pub use hypercall::{Hypercall, HypercallError};
