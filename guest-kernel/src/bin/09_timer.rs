//! Sleeps while the CPU halts, and is interrupted by the timer.
//!
//! # What you will see
//!
//! ```console
//! asleep for 20 ms
//! awake after … ms and 0 exits: the CPU has halted, and the VMM knows nothing of it
//! tick 1
//! tick 2
//! tick 3
//! tick 4
//! tick 5
//! an interrupt comes between two instructions: this time in front of 0x…
//! ```
//!
//! # Where to look
//!
//! A clock says how late it is; a timer interrupts when it is time. The clock is the CPU's counter of cycles, and KVM
//! tells how to make nanoseconds of it. The timer is part of the local APIC, the CPU's own interrupt controller: it counts
//! down, and at 0 the CPU leaves what it does for the gate of a vector.
//!
//! Guest: `guest-kernel/src/time/clock.rs`, `guest-kernel/src/time/timer.rs` and `guest-kernel/src/cpu/apic.rs`;
//! `guest-kernel/src/cpu/vectors.rs` has the map of the gates, `guest-kernel/src/exceptions/entry.rs` is where all of them
//! lead. Host: `vmm/src/interrupts.rs` asks KVM for the controllers, as this program is linked with their use
//! (`shared-abi/src/needs.rs`); all else KVM does by itself.
//!
//! # Exercises
//!
//! 1. Run it with `--interrupts off`. How does it sleep now? It looks at the clock again and again, and the first alarm
//!    panics: `this machine has no interrupt controllers`.
//! 2. Let the host press a button: call `interrupts::on_pin(BUTTON, Trigger::Edge, ...)`, wait with
//!    `interrupts::wait_while`, and run it with `--button`. Each line that you type is an interrupt.
//! 3. Halt for ever with interrupts off, by `cpu::halt::halt_forever()`, and run it with `--timeout 1s`:
//!    `vmm: the guest was stopped after its time limit of 1s`.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use guest_kernel::hypercall::exit_count;
use guest_kernel::time::{Instant, sleep, timer};
use guest_kernel::{entry, interrupts, println};

entry!(main);

/// How often the timer has interrupted, and where it did last.
static TICKS: AtomicU64 = AtomicU64::new(0);
static PLACE: AtomicU64 = AtomicU64::new(0);

fn main() {
    let time = Duration::from_millis(20);
    println!("asleep for {} ms", time.as_millis());
    let (start, before) = (Instant::now(), exit_count());
    sleep(time);
    // To ask is an exit, too.
    let exits = exit_count() - before - 1;
    let took = start.elapsed().as_millis();
    println!("awake after {took} ms and {exits} exits: the CPU has halted, and the VMM knows nothing of it");

    let alarm = timer::every(Duration::from_millis(10), |frame| {
        PLACE.store(frame.rip, Ordering::Relaxed);
        TICKS.fetch_add(1, Ordering::Relaxed);
    });
    for tick in 1..=5 {
        interrupts::wait_while(|| TICKS.load(Ordering::Relaxed) < tick);
        println!("tick {tick}");
    }
    timer::cancel(alarm.expect("there is room for an alarm"));
    let place = PLACE.load(Ordering::Relaxed);
    println!("an interrupt comes between two instructions: this time in front of {place:#x}");
}
