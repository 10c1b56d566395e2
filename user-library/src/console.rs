//! Text out: `println!`, one system call a line.

use core::fmt::{self, Write};

use crate::abi::CONSOLE;
use crate::calls;

/// A line being put together; what it holds goes to the kernel when it is full and when it is dropped.
pub struct Line {
    bytes: [u8; Self::SIZE],
    length: usize,
}

impl Line {
    /// A longer line takes more than one call.
    const SIZE: usize = 256;

    /// An empty line.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: [0; Self::SIZE], length: 0 }
    }

    fn send(&mut self) {
        // A kernel that cannot show it has nobody to tell, and neither have we.
        let _ = calls::write_all(CONSOLE, self.bytes.get(..self.length).unwrap_or_default());
        self.length = 0;
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.length == Self::SIZE {
                self.send();
            }
            if let Some(place) = self.bytes.get_mut(self.length) {
                *place = byte;
                self.length += 1;
            }
        }
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.send();
    }
}

/// Prints; the macros end here.
pub fn print(text: fmt::Arguments<'_>) {
    let _ = Line::new().write_fmt(text);
}

/// Prints to the console.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::console::print(format_args!($($text)*)) };
}

/// Prints to the console, with a newline.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($text:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($text)*))) };
}
