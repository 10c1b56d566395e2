//! Ways to print.

use guest_kernel::console::DebugConsole;
use guest_kernel::cpu::port;
use guest_kernel::{arguments, boot_info, println};
use shared_abi::ports::DEBUG_CONSOLE;

use crate::{Deed, number};

pub(crate) const DEEDS: &[Deed] = &[
    ("print-sizes", print_sizes),
    ("print-bytes", print_bytes),
    ("console-present", || println!("{}", DebugConsole::is_present())),
    ("console-present-wide", || println!("{:x}", port::inl(DEBUG_CONSOLE))),
    ("arguments", || arguments().for_each(|argument| println!("[{argument}]"))),
    ("boot-info", || println!("{:#x?}", boot_info())),
];

/// All bytes of an access are printed, lowest first.
fn print_sizes() {
    port::outb(DEBUG_CONSOLE, b'1');
    port::outw(DEBUG_CONSOLE, u16::from_le_bytes(*b"22"));
    port::outl(DEBUG_CONSOLE, u32::from_le_bytes(*b"444\n"));
}

/// So many bytes, every value in turn.
fn print_bytes() {
    for byte in 0..number() {
        port::outb(DEBUG_CONSOLE, byte as u8);
    }
}
