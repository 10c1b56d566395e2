//! The debug console: text out through port 0xE9, one byte an `outb`, one exit a byte.
//!
//! Host side: `vmm/src/devices/debug_console.rs`.

use core::fmt::{self, Write};

use shared_abi::ports;

use crate::cpu::port;

/// The debug console. It has no state, so anyone may make one.
#[derive(Clone, Copy, Debug, Default)]
pub struct DebugConsole;

impl DebugConsole {
    /// Whether a console answers at the port; true under the Duet VMM, Bochs, and QEMU's `-debugcon`.
    #[must_use]
    pub fn is_present() -> bool {
        port::inb(ports::DEBUG_CONSOLE) == ports::DEBUG_CONSOLE_PRESENT
    }

    /// Writes `bytes`, one `outb` each.
    pub fn write_bytes(self, bytes: &[u8]) {
        for &byte in bytes {
            port::outb(ports::DEBUG_CONSOLE, byte);
        }
    }
}

impl Write for DebugConsole {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_bytes(text.as_bytes());
        Ok(())
    }
}

/// Prints to the debug console; [`print!`](crate::print) ends here.
pub fn print(text: fmt::Arguments<'_>) {
    // Text without placeholders is known at compile time: no formatting code runs.
    let result = match text.as_str() {
        Some(text) => DebugConsole.write_str(text),
        None => DebugConsole.write_fmt(text),
    };
    // The console never fails; a `Display` of the program may, and then its text ends there.
    let _ = result;
}

/// Prints a line to the debug console; [`println!`](crate::println) ends here.
pub fn print_line(text: fmt::Arguments<'_>) {
    print(text);
    print(format_args!("\n"));
}

/// Prints to the console, like `std::print!`.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::console::print(::core::format_args!($($text)*)) };
}

/// Prints a line to the console, like `std::println!`.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => { $crate::console::print_line(::core::format_args!($($text)*)) };
}
