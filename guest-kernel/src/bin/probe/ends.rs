//! Ways to end, and ways not to.

use core::fmt;

use guest_kernel::cpu::{cpuid, halt, port};
use guest_kernel::hypercall::{Hypercall, call};
use guest_kernel::{Gva, power, print, println};

use crate::{Deed, number};

pub(crate) const DEEDS: &[Deed] = &[
    ("exit", || power::exit(number() as u32)),
    ("exit-by-byte", || port::outb(shared_abi::ports::EXIT, number() as u8)),
    ("return", || {}),
    ("panic", || panic!("asked to panic")),
    ("panic-at-length", || panic!("{}the end", core::str::from_utf8(&[b'x'; 6000]).expect("ASCII"))),
    ("panic-with-escapes", || panic!("first\nsecond \u{1b}[2Jthird")),
    ("panic-in-panic", || panic!("{}", Unspeakable)),
    ("panic-and-halt", panic_and_halt),
    ("panic-nowhere", panic_nowhere),
    ("halt", || halt::halt_forever()),
    ("halt-with-interrupts", halt::wait_for_interrupt),
    ("spin", || spin()),
    ("cpuid", || println!("{}", cpuid::leaf(0).eax)),
    ("print-and-spin", print_and_spin),
];

/// What cannot be printed.
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("{}", Unspeakable)
    }
}

/// Says that it panics, and does something else.
fn panic_and_halt() {
    let words = "own words";
    let _ = call(Hypercall::Panic { text_gva: Gva(words.as_ptr() as u64), text_size: words.len() as u64 });
    halt::wait_for_interrupt();
}

/// Last words that are not there, or are more than there is RAM.
fn panic_nowhere() {
    for (gva, size) in [(0, 1), (u64::MAX, 2), (0x1_0000, u64::MAX), (0x3_9FFF, 2)] {
        println!("{:?}", call(Hypercall::Panic { text_gva: Gva(gva), text_size: size }));
    }
}

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
