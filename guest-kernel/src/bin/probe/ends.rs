//! Ways to end, and ways not to.

use guest_kernel::cpu::{halt, port};
use guest_kernel::{power, print};

use crate::{Deed, number};

pub(crate) const DEEDS: &[Deed] = &[
    ("exit", || power::exit(number() as u32)),
    ("exit-by-byte", || port::outb(shared_abi::ports::EXIT, number() as u8)),
    ("return", || {}),
    ("panic", || panic!("asked to panic")),
    ("halt", || halt::halt_forever()),
    ("halt-with-interrupts", halt::wait_for_interrupt),
    ("spin", || spin()),
    ("print-and-spin", print_and_spin),
];

fn spin() -> ! {
    loop {
        core::hint::spin_loop();
    }
}

/// Without a newline: what was said must be seen all the same.
fn print_and_spin() {
    print!("still here");
    spin()
}
