//! The ways out of a guest, compared: 4 KiB of text by each of them.
//!
//! `cargo xtask lab console` runs this and makes a table of the lines that start with `lab:`: the way, the exits of
//! this vCPU, the nanoseconds. The first argument says how often each way is measured.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::channel::{CoalescedPort, MmioConsole, RingMemory, RingWriter};
use guest_kernel::console::DebugConsole;
use guest_kernel::cpu::port;
use guest_kernel::hypercall::{HypercallError, console_write, exit_count, monotonic_ns};
use guest_kernel::{arguments, entry, println};
use shared_abi::ports;

entry!(main);

fn main() {
    let often = arguments().next().and_then(|word| word.parse().ok()).unwrap_or(1);
    measure("outb", often, || DebugConsole.write_bytes(&TEXT));
    measure("rep outsb", often, || port::rep_outsb(ports::DEBUG_CONSOLE, &TEXT));
    measure("hypercall", often, || console_write(&TEXT).unwrap_or_default());
    measure_opened("MMIO", often, MmioConsole::open(), |console| console.write(&TEXT));
    measure_opened("coalesced PIO", often, CoalescedPort::open(), |console| console.write(&TEXT));
    measure_opened("coalesced MMIO", often, MmioConsole::open_coalesced(), |console| console.write(&TEXT));
    measure_opened("ring, doorbell", often, RingWriter::open_with_doorbell(&FIRST_RING), |ring| {
        ring.write(&TEXT);
        ring.flush();
    });
    measure_opened("ring, polled", often, RingWriter::open_polled(&SECOND_RING), |ring| {
        ring.write(&TEXT);
        ring.flush();
    });
}

/// 64 lines of 64 bytes.
static TEXT: [u8; 4096] = {
    let mut text = [b'.'; 4096];
    let mut line_end = 63;
    while line_end < text.len() {
        text[line_end] = b'\n';
        line_end += 64;
    }
    text
};

static FIRST_RING: RingMemory<8192> = RingMemory::new();
static SECOND_RING: RingMemory<8192> = RingMemory::new();

fn measure(way: &str, often: u32, mut write: impl FnMut()) {
    for _ in 0..often {
        let (exits, start) = (exit_count(), monotonic_ns());
        write();
        let (ns, exits) = (monotonic_ns() - start, exit_count() - exits);
        println!("lab: {way}\t{}\t{ns}", exits - MEASURING_EXITS);
    }
}

/// Exits between the two counts that are not the text's: the time before, the time behind, and the second count.
const MEASURING_EXITS: u64 = 3;

fn measure_opened<T>(
    way: &str,
    often: u32,
    opened: Result<T, HypercallError>,
    mut write: impl FnMut(&mut T),
) {
    match opened {
        Ok(mut console) => measure(way, often, || write(&mut console)),
        Err(error) => println!("lab: {way}\tnot here: {error:?}"),
    }
}
