//! Talks to devices through ports: the console, the end of the run, and a port where nobody is.
//!
//! # What you will see
//!
//! ```console
//! $ cargo xtask run 03_ports
//! IN  from port 0xe9: 0xe9, so there is a console
//! OUT to   port 0xe9: abcd
//! OUT to   port 0xf4: this is the end
//! $ echo $?
//! 7
//! $ cargo xtask run 03_ports -- 0x1234
//! vmm: the guest died: it read 1 bytes from port 0x1234, where no device is, in guest_kernel::cpu::port::inb at …
//! …
//! ```
//!
//! # Where to look
//!
//! Besides memory an x86 CPU has 65536 ports: small addresses with instructions of their own, IN and OUT. Real machines
//! have their oldest devices there. A guest's IN or OUT makes it exit, and the VMM is the device.
//!
//! Guest: `guest-kernel/src/cpu/port.rs` has the two instructions in three sizes. Host: `vmm/src/devices/bus.rs` finds
//! the device; `vmm/src/devices/debug_console.rs` and `vmm/src/devices/exit_port.rs` are the two that answer here. Their
//! numbers are in `shared-abi/src/ports.rs`.
//!
//! # Exercises
//!
//! 1. Write `abcd` in the other order by `outl`: a CPU stores the lowest byte first. The console says `dcba`.
//! 2. Take the last line of `main` out. The run ends with exit code 0: `main` returns, and `_start` writes to the port.
//! 3. Make a device of your own: "Add a device" in CONTRIBUTING.md. `cargo xtask run 03_ports -- 0x1234` then says
//!    `IN  from port 0x1234:` and what your device answers.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::cpu::port;
use guest_kernel::{arguments, entry, print, println};
use shared_abi::ports;

entry!(main);

fn main() {
    // `-- PORT` reads from that port instead.
    if let Some(number) = arguments().next() {
        let port = u16::from_str_radix(number.trim_start_matches("0x"), 16).expect("a port in hexadecimal");
        println!("IN  from port {port:#x}: {:#x}", port::inb(port));
        return;
    }
    let answer = port::inb(ports::DEBUG_CONSOLE);
    println!("IN  from port {:#x}: {answer:#x}, so there is a console", ports::DEBUG_CONSOLE);

    print!("OUT to   port {:#x}: ", ports::DEBUG_CONSOLE);
    port::outl(ports::DEBUG_CONSOLE, u32::from_le_bytes(*b"abcd"));
    port::outb(ports::DEBUG_CONSOLE, b'\n');

    println!("OUT to   port {:#x}: this is the end", ports::EXIT);
    port::outb(ports::EXIT, 7);
}
