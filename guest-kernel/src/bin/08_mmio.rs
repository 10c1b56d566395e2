//! Writes to a device that looks like memory.
//!
//! # What you will see
//!
//! ```console
//! 0xc0000000 is not mapped: no RAM is there, and nobody has asked
//! 0xc0000000 is mapped now, rw-, by a page of 2048 KiB that is not cached
//! sixteen letters!
//! that took 3 exits: the CPU writes 8 bytes at once
//! 0xc0000000 says 0: the console has nothing to tell
//! ```
//!
//! # Where to look
//!
//! Most devices of a modern machine have no ports: their registers lie among the addresses of RAM. An access to them is
//! an ordinary `mov`. The CPU finds no RAM there and leaves the guest; KVM decodes the instruction, and the VMM plays
//! the device (MMIO, memory-mapped I/O).
//!
//! Guest: `guest-kernel/src/device_memory.rs` maps the addresses without a cache, as every access must arrive;
//! `guest-kernel/src/channel.rs` writes there. Host: `vmm/src/devices/mmio_console.rs` is the device,
//! `vmm/src/devices/bus.rs` finds it, and `vmm/src/exit.rs` shows what KVM says of the exit.
//!
//! # Exercises
//!
//! 1. Print 64 letters. How many exits? 8.
//! 2. Use `MmioConsole::open_coalesced()`, where KVM keeps the writes until the next exit of another kind: 0 exits.
//! 3. Read at `0xc0100000`, where no device is: `the guest died: it read 1 byte at 0xc0100000, where no device is`.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::channel::MmioConsole;
use guest_kernel::cpu::provoke;
use guest_kernel::hypercall::{ExitKind, exit_count_of};
use guest_kernel::memory::paging::AddressSpace;
use guest_kernel::{Gva, entry, println};
use shared_abi::layout;

entry!(main);

fn main() {
    let device = Gva(layout::CONSOLE_MMIO.0);
    assert_eq!(AddressSpace::kernel().translate(device), None);
    println!("{device} is not mapped: no RAM is there, and nobody has asked");

    let console = MmioConsole::open().expect("a frame for a page table");
    let page = AddressSpace::kernel().translate(device).expect("it was mapped just now");
    let (rights, size) = (page.rights, page.page_size >> 10);
    println!("{device} is mapped now, {rights}, by a page of {size} KiB that is not cached");

    let before = exit_count_of(ExitKind::MmioWrite);
    console.write(b"sixteen letters!\n");
    let exits = exit_count_of(ExitKind::MmioWrite) - before;
    println!("that took {exits} exits: the CPU writes 8 bytes at once");

    println!("{device} says {}: the console has nothing to tell", provoke::read(device));
}
