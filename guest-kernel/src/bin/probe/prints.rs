//! Ways to print.

use guest_kernel::channel::{CoalescedPort, RingMemory, RingWriter};
use guest_kernel::console::DebugConsole;
use guest_kernel::cpu::port;
use guest_kernel::{arguments, boot_info, println};
use shared_abi::ports::DEBUG_CONSOLE;

use crate::{Deed, number};

pub(crate) const DEEDS: &[Deed] = &[
    ("print-sizes", print_sizes),
    ("print-bytes", print_bytes),
    ("flood", flood),
    ("flood-coalesced", flood_coalesced),
    ("flood-ring", flood_ring),
    ("ring-line", ring_line),
    ("coalesced-line", coalesced_line),
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

/// Lines for ever, by hypercall.
fn flood() {
    loop {
        println!("another line, to whoever reads it");
    }
}

/// Lines for ever that KVM keeps; of such a length, and behind a half one, that no exit ever ends a line.
fn flood_coalesced() {
    let port = CoalescedPort::open().expect("a KVM that keeps writes");
    port.write(b"x");
    loop {
        port.write(b"ten bytes\n");
    }
}

static RING: RingMemory<4096> = RingMemory::new();

/// Lines for ever, by ring.
fn flood_ring() {
    let mut ring = RingWriter::open_with_doorbell(&RING).expect("a KVM with doorbells");
    loop {
        ring.write(b"another line, to whoever reads it\n");
    }
}

fn ring_line() {
    RingWriter::open_with_doorbell(&RING).expect("a KVM with doorbells").write(b"by ring\n");
}

fn coalesced_line() {
    CoalescedPort::open().expect("a KVM that keeps writes").write(b"kept by KVM\n");
}

/// So many bytes, every value in turn.
fn print_bytes() {
    for byte in 0..number() {
        port::outb(DEBUG_CONSOLE, byte as u8);
    }
}
