//! The console: text out.
//!
//! There are two ways. [`println!`](crate::println) formats a line into a buffer on the stack and hands it to the host
//! by one hypercall: one exit a line. [`println_raw!`](crate::println_raw) sends each byte through port 0xE9 by `outb`:
//! one exit a byte, but it needs nothing of the machine except the port, so it is for early boot, for last words, and
//! for the lesson what an exit costs.
//!
//! Host side: `vmm/src/hypercall/console.rs` and `vmm/src/devices/debug_console.rs`.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};

use shared_abi::ports;

use crate::cpu::{self, port};
use crate::{hypercall, smp};

/// The debug console at port 0xE9, byte by byte. It has no state, so anyone may make one.
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

/// A line being put together; what it holds goes to the host when it is full and when it is dropped.
///
/// It lives on the stack of whoever prints, so nothing is shared. What it sends at once is never torn: it is one call of
/// the host's. A line that is longer takes several, and from its first to its last it has the console for itself
/// (`Turn`).
pub struct Line {
    bytes: [u8; Self::SIZE],
    length: usize,
    send: fn(&[u8]),
    /// Whether it waits for its turn: last words do not.
    takes_turns: bool,
    turn: Option<Turn>,
}

/// The turn of the CPU that prints; the others wait meanwhile. Whoever has it may print inside: a `Display` that prints,
/// the handler of an exception or an interrupt. So it is no [`Mutex`](crate::sync::Mutex), and leaves interrupts alone.
struct Turn {
    /// Whether this CPU had the turn already, and goes on having it.
    is_inner: bool,
}

/// The CPU whose turn it is, plus 1; 0 when it is nobody's.
static TURN: AtomicUsize = AtomicUsize::new(0);

impl Turn {
    /// Waits for it.
    fn take() -> Self {
        let own = cpu::id().number() + 1;
        loop {
            match TURN.compare_exchange_weak(0, own, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Self { is_inner: false },
                Err(holder) if holder == own => return Self { is_inner: true },
                Err(_) => smp::relax(),
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_inner {
            TURN.store(0, Ordering::Release);
        }
    }
}

impl Line {
    /// A longer line takes more than one exit.
    const SIZE: usize = 512;

    /// An empty line.
    #[must_use]
    pub fn new() -> Self {
        let mut line = Self::to(send);
        line.takes_turns = true;
        line
    }

    /// An empty line that goes elsewhere than to the console, at once: whoever has the turn may wait for who says this.
    pub(crate) fn to(send: fn(&[u8])) -> Self {
        Self { bytes: [0; Self::SIZE], length: 0, send, takes_turns: false, turn: None }
    }

    /// Sends what there is of a line that goes on.
    fn send_part(&mut self) {
        if self.takes_turns {
            self.turn.get_or_insert_with(Turn::take);
        }
        self.send();
    }

    fn send(&mut self) {
        let text = self.bytes.get(..self.length).unwrap_or_default();
        if !text.is_empty() {
            let _turn = self.takes_turns.then(Turn::take);
            (self.send)(text);
        }
        self.length = 0;
    }
}

/// Hands a whole text to the host, when it is this CPU's turn.
fn send_whole(text: &[u8]) {
    if !text.is_empty() {
        let _turn = Turn::take();
        send(text);
    }
}

/// Hands text to the host. A host that cannot show it has ended the run or will; there is nobody else to tell.
fn send(text: &[u8]) {
    if !text.is_empty() {
        let _ = hypercall::console_write(text);
    }
}

impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > Self::SIZE - self.length {
            self.send_part();
        }
        if text.len() > Self::SIZE {
            (self.send)(text.as_bytes());
            return Ok(());
        }
        let end = self.length + text.len();
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(text.as_bytes());
            self.length = end;
        }
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.send();
    }
}

/// Prints; [`print!`](crate::print) and [`println!`](crate::println) end here.
pub fn print(text: fmt::Arguments<'_>) {
    match text.as_str() {
        // Text without placeholders is known at compile time: it needs no buffer.
        Some(text) => send_whole(text.as_bytes()),
        // A `Display` of the program may fail; then its text ends there.
        None => {
            let _ = Line::new().write_fmt(text);
        }
    }
}

/// Prints byte by byte; [`print_raw!`](crate::print_raw) and [`println_raw!`](crate::println_raw) end here.
pub fn print_raw(text: fmt::Arguments<'_>) {
    // The console never fails; a `Display` of the program may, and then its text ends there.
    let _ = DebugConsole.write_fmt(text);
}

/// Prints to the console, like `std::print!`: one exit.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::console::print(::core::format_args!($($text)*)) };
}

/// Prints a line to the console, like `std::println!`: one exit.
#[macro_export]
macro_rules! println {
    () => { $crate::print!("\n") };
    ($($text:tt)*) => {
        $crate::console::print(::core::format_args!("{}\n", ::core::format_args!($($text)*)))
    };
}

/// Prints through port 0xE9: one exit a byte.
#[macro_export]
macro_rules! print_raw {
    ($($text:tt)*) => { $crate::console::print_raw(::core::format_args!($($text)*)) };
}

/// Prints a line through port 0xE9: one exit a byte.
#[macro_export]
macro_rules! println_raw {
    () => { $crate::print_raw!("\n") };
    ($($text:tt)*) => {
        $crate::console::print_raw(::core::format_args!("{}\n", ::core::format_args!($($text)*)))
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_test;

    #[guest_test(max_exits = 1, prints = "now")]
    fn a_line_is_sent_when_it_is_dropped() {
        let mut line = Line::new();
        line.write_str("now").expect("a line takes all");
        assert_eq!(line.length, 3);
    }

    #[guest_test(max_exits = 2, prints = "then this")]
    fn a_full_line_is_sent_before_more_is_put_in() {
        let mut line = Line::new();
        line.length = Line::SIZE;
        line.write_str("then this").expect("a line takes all");
        assert_eq!(line.length, 9);
    }
}
