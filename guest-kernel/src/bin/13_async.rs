//! Two tasks take turns on one CPU, and each only waits.
//!
//! # What you will see
//!
//! ```console
//! tick 1
//! tock 1
//! tick 2
//! tock 2
//! tick 3
//! both are done; the CPU has halted in between
//! ```
//!
//! # Where to look
//!
//! An `async` function is a state machine that the compiler makes: where it awaits, it returns. The executor calls it
//! again when somebody wakes its task, and here that is the interrupt of the timer. No task has a stack of its own, and
//! none can be interrupted by another: they take turns where they await.
//!
//! Guest: `guest-kernel/src/task.rs` is the executor, `guest-kernel/src/task/sleep.rs` and
//! `guest-kernel/src/task/input.rs` are what one can wait for. Host: KVM's timer interrupts a CPU that halts;
//! `vmm/src/arrivals.rs` presses a line when something was typed.
//!
//! # Exercises
//!
//! 1. Spawn a third task that reads what is typed: `task::read_input(&mut buffer).await`, in a loop until it gives 0
//!    bytes. Pipe something into it: `echo hello | cargo xtask run 13_async`. It is printed before the first tick.
//! 2. Replace `task::sleep_until` by `guest_kernel::time::sleep_until`, which halts the CPU itself. Now one task counts to its
//!    end before the other starts: `tick 1`, `tick 2`, `tick 3`, `tock 1`, `tock 2`.
//! 3. Look at a run with `cargo xtask run 13_async --timeline run.json`. How many exits are there? A line each, and the end.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::time::Duration;

use guest_kernel::time::Instant;
use guest_kernel::{entry, println, task};

entry!(main);

fn main() {
    let start = Instant::now();
    task::spawn(count("tick", start, Duration::from_millis(40), 3));
    task::spawn(count("tock", start, Duration::from_millis(50), 2));
    task::run();
    println!("both are done; the CPU has halted in between");
}

/// Prints `word` and a number after each period.
async fn count(word: &'static str, start: Instant, period: Duration, times: u32) {
    for number in 1..=times {
        // By the clock, so that delays do not add up.
        task::sleep_until(start + period * number).await;
        println!("{word} {number}");
    }
}
