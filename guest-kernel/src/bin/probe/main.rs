//! The accomplice of the host's tests: does on request what should print, end, fault or hang.
//!
//! The first argument names the deed, further ones are its own. `cargo xtask run probe -- list` shows them all. Behind
//! `without-idt` a deed is done by a kernel that has no handler for any exception.

#![cfg_attr(target_os = "none", no_std, no_main)]

mod calls;
mod chance;
mod ends;
mod faults;
mod files;
mod gallery;
mod memory;
mod prints;

use guest_kernel::cpu::idt;
use guest_kernel::{arguments, entry, println};

entry!(main);

/// A deed: its name, and what it does with the arguments behind the name.
type Deed = (&'static str, fn());

fn main() {
    let own =
        [ends::DEEDS, prints::DEEDS, calls::DEEDS, chance::DEEDS, faults::DEEDS, files::DEEDS, memory::DEEDS];
    let deeds = || own.into_iter().flatten();
    let name = words().next().unwrap_or("list");
    if arguments().next() == Some(WITHOUT_IDT) {
        idt::unload();
    }
    if name == "list" {
        deeds().for_each(|(name, _)| println!("{name}"));
        println!("\nthe gallery of deaths:");
        gallery::deaths().for_each(|death| println!("{:<22} {}", death.name, death.about));
        return;
    }
    let deaths = gallery::deaths().map(|death| (death.name, death.deed));
    match deeds().copied().chain(deaths).find(|(own, _)| *own == name) {
        Some((_, deed)) => deed(),
        None => panic!("the probe knows no deed `{name}`"),
    }
}

const WITHOUT_IDT: &str = "without-idt";

/// The deed's name, and its arguments.
fn words() -> impl Iterator<Item = &'static str> {
    arguments().skip_while(|word| *word == WITHOUT_IDT)
}

/// The number that stands behind the deed's name, in decimal.
fn number() -> u64 {
    words().nth(1).and_then(|word| word.parse().ok()).expect("the deed wants a number")
}
