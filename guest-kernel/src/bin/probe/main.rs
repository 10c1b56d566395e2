//! The accomplice of the host's tests: does on request what should print, end, fault or hang.
//!
//! The first argument names the deed, further ones are its own. `cargo xtask run probe -- list` shows them all. Behind
//! `without-idt` a deed is done by a kernel that has no handler for any exception.

#![cfg_attr(target_os = "none", no_std, no_main)]

mod calls;
mod chance;
mod cpus;
mod debuggee;
mod ends;
mod faults;
mod files;
mod gallery;
mod memory;
mod prints;
mod snapshots;
mod wander;

use guest_kernel::cpu::idt;
use guest_kernel::{arguments, entry, hypercall, println};

entry!(main);

/// A deed: its name, and what it does with the arguments behind the name.
type Deed = (&'static str, fn());

/// All deeds but the deaths of the gallery.
const DEEDS: &[&[Deed]] = &[
    ends::DEEDS,
    prints::DEEDS,
    calls::DEEDS,
    faults::DEEDS,
    files::DEEDS,
    memory::DEEDS,
    chance::DEEDS,
    cpus::DEEDS,
    debuggee::DEEDS,
    snapshots::DEEDS,
    wander::DEEDS,
];

fn main() {
    let name = words().next().unwrap_or("list");
    if arguments().next() == Some(WITHOUT_IDT) {
        idt::unload();
    }
    if name == "list" {
        list();
        return;
    }
    match deed(name) {
        Some(deed) => deed(),
        None => panic!("the probe knows no deed `{name}`"),
    }
}

fn list() {
    DEEDS.iter().copied().flatten().for_each(|(name, _)| println!("{name}"));
    println!("\nthe gallery of deaths:");
    gallery::ROOMS.iter().copied().flatten().for_each(|death| println!("{:<22} {}", death.name, death.about));
}

/// The deed of this name. Plain loops: where a KVM interprets the kernel, unoptimised iterators take a tenth of a second.
fn deed(name: &str) -> Option<fn()> {
    for deeds in DEEDS {
        for (own, deed) in *deeds {
            if *own == name {
                return Some(*deed);
            }
        }
    }
    for room in gallery::ROOMS {
        for death in *room {
            if death.name == name {
                // A KVM that loses the registers of the dead has the host step from the last exit: here.
                let _ = hypercall::exit_count();
                return Some(death.deed);
            }
        }
    }
    None
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
