//! Counts exits, and measures what one costs.
//!
//! # What you will see
//!
//! ```console
//! the same line twice
//! the same line twice
//! through the port: 20 exits; by one call: 1 exit
//! an exit takes … ns; in that time a CPU executes thousands of instructions
//! ```
//!
//! # Where to look
//!
//! An exit is the way from the guest to the VMM and back: the CPU leaves the guest, KVM looks why, the VMM's process
//! wakes from KVM_RUN, answers, and enters again. Nothing else in a guest is as slow. So `println!` collects a line and
//! leaves once for all of it.
//!
//! Guest: `DebugConsole::write_bytes` in `guest-kernel/src/console.rs` leaves once a byte, `print!` in the same file
//! once a line. Host: `vmm/src/run_loop.rs` answers; `vmm/src/observe/counts.rs` counts, and the guest asks for the
//! counts by the call `ExitCountOf`.
//!
//! # Exercises
//!
//! 1. Print a line of 1000 characters by `print!`. It takes 2 exits: a line is collected in 512 bytes.
//! 2. `cargo xtask run 02_exit_cost --stats` adds up all exits by line of this file. Which line has 20? The one with
//!    `write_bytes`.
//! 3. `cargo xtask lab console` compares six ways for text out of a guest. The ring needs no exits at all.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::console::DebugConsole;
use guest_kernel::cpu::port;
use guest_kernel::hypercall::{ExitKind, exit_count_of, monotonic_ns};
use guest_kernel::{entry, print, println};
use shared_abi::ports;

entry!(main);

const LINE: &str = "the same line twice\n";

fn main() {
    let before = exit_count_of(ExitKind::PioOut);
    DebugConsole.write_bytes(LINE.as_bytes());
    let through_port = exit_count_of(ExitKind::PioOut) - before;

    let before = exit_count_of(ExitKind::Hypercall);
    print!("{LINE}");
    // To ask for the count is a call, too.
    let by_call = exit_count_of(ExitKind::Hypercall) - before - 1;
    println!("through the port: {through_port} exits; by one call: {by_call} exit");

    const TIMES: u64 = 1000;
    let start = monotonic_ns();
    for _ in 0..TIMES {
        let _ = port::inb(ports::DEBUG_CONSOLE);
    }
    let each = (monotonic_ns() - start) / TIMES;
    println!("an exit takes {each} ns; in that time a CPU executes thousands of instructions");
}
