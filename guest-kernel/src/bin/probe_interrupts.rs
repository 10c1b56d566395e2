//! The accomplice of the host's tests of interrupts: waits, sleeps, counts, and misuses the controllers.
//!
//! It is a program of its own, because being linked with interrupts makes its machine another one: the probe's would no
//! longer end when it halts. The first argument names the deed, further ones are its own.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::time::Duration;

use guest_kernel::cpu::halt;
use guest_kernel::time::{Instant, sleep};
use guest_kernel::{arguments, entry, interrupts, println};

entry!(main);

/// All deeds, by name.
const DEEDS: &[(&str, fn())] =
    &[("sleep", sleep_for), ("wait", || interrupts::wait_while(|| true)), ("halt", || halt::halt_forever())];

fn main() {
    let name = arguments().next().unwrap_or("list");
    match DEEDS.iter().find(|(own, _)| *own == name) {
        Some((_, deed)) => deed(),
        None => DEEDS.iter().for_each(|(name, _)| println!("{name}")),
    }
}

/// The number that stands behind the deed's name, in decimal.
fn number() -> u64 {
    arguments().nth(1).and_then(|word| word.parse().ok()).expect("the deed wants a number")
}

/// Sleeps for so many milliseconds, and says how long that was.
fn sleep_for() {
    let start = Instant::now();
    sleep(Duration::from_millis(number()));
    println!("{}", start.elapsed().as_micros());
}
