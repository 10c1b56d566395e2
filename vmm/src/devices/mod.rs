//! Devices: what answers when a guest reads or writes an I/O port, or an address without RAM.
//!
//! A device is registers and perhaps an interrupt line. It knows its bus and its sink and never KVM, so each can
//! be tested by calling it.

pub mod bus;
mod debug_console;
mod exit_port;
pub mod ioapic;
mod mmio_console;

pub use bus::{MmioDevice, PioDevice};
pub use debug_console::DebugConsole;
pub use exit_port::ExitPort;
pub use ioapic::Ioapic;
pub use mmio_console::MmioConsole;
