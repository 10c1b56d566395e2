//! The accomplice of the host's tests: does on request what should print, end, fault or hang.
//!
//! The first argument names the deed, further ones are its own. `cargo xtask run probe -- list` shows them all.

#![cfg_attr(target_os = "none", no_std, no_main)]

mod calls;
mod debuggee;
mod ends;
mod faults;
mod files;
mod memory;
mod prints;

use guest_kernel::{arguments, entry, println};

entry!(main);

/// A deed: its name, and what it does with the arguments behind the name.
type Deed = (&'static str, fn());

fn main() {
    let own = [
        ends::DEEDS,
        prints::DEEDS,
        calls::DEEDS,
        faults::DEEDS,
        files::DEEDS,
        memory::DEEDS,
        debuggee::DEEDS,
    ];
    let deeds = || own.into_iter().flatten();
    let name = arguments().next().unwrap_or("list");
    if name == "list" {
        deeds().for_each(|(name, _)| println!("{name}"));
        return;
    }
    match deeds().find(|(own, _)| *own == name) {
        Some((_, deed)) => deed(),
        None => panic!("the probe knows no deed `{name}`"),
    }
}

/// The number that stands behind the deed's name, in decimal.
fn number() -> u64 {
    arguments().nth(1).and_then(|word| word.parse().ok()).expect("the deed wants a number")
}
