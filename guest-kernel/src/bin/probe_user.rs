//! The accomplice of the host's tests of user mode: starts many processes, runs programs made by chance.
//!
//! It is a program of its own, because being linked with a scheduler makes its machine one with interrupts. The first
//! argument names the deed, further ones are its own.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::memory::{frames, heap};
use guest_kernel::user::{self, End, Process, Program, Scheduler, chance};
use guest_kernel::{arguments, entry, files, println};

entry!(main);

const DEEDS: &[(&str, fn())] =
    &[("starts", starts), ("chance", by_chance), ("types", types), ("spins", spins), ("files", from_files)];

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

/// Starts so many processes one after the other, of which every other dies, and counts frames before and after.
fn starts() {
    let run = |crime| {
        let process = Process::load(&TRESPASSES).expect("our build has made it");
        process.with_argument(crime).run_alone()
    };
    // The first one has the heap grow, and that stays.
    assert!(matches!(run(HALT), End::Died(_)));
    let before = (frames::free_count(), heap::usage().in_use);
    let died = (0..number())
        .filter(|number| matches!(run([NONE, HALT][*number as usize % 2]), End::Died(_)))
        .count();
    let after = (frames::free_count(), heap::usage().in_use);
    println!("{died} died; frames {} and {}; heap {} and {}", before.0, after.0, before.1, after.1);
}

const TRESPASSES: Program = user::program!("trespasses");
/// The crime that is `hlt`.
const HALT: u64 = 3;
/// The one that is none.
const NONE: u64 = 6;

/// Runs so many programs of bytes and of calls by chance, and tells how they ended.
fn by_chance() {
    let mut ends = [0; 4];
    let mut count = |end| {
        let place = match end {
            End::Exited(_) => 0,
            End::Died(_) => 1,
            End::Stuck(_) => 2,
            End::OutOfTime => 3,
        };
        ends[place] += 1;
    };
    count(chance::run_bytes(0));
    let before = frames::free_count();
    for seed in 1..number() {
        count(chance::run_bytes(seed));
        count(chance::run_calls(seed));
    }
    println!("exited, died, stuck, out of time: {ends:?}; frames {before} and {}", frames::free_count());
}

/// Runs a program that writes what it reads.
fn types() {
    // `read(0, stack, 64)`, `write(0, stack, what was read)`, `exit(what was read)`
    let code = [
        &[
            0x48, 0x83, 0xEC, 64, 0x31, 0xFF, 0x48, 0x89, 0xE6, 0xBA, 64, 0, 0, 0, 0xB8, 2, 0, 0, 0, 0x0F,
            0x05,
        ][..],
        &[0x31, 0xFF, 0x48, 0x89, 0xC2, 0xB8, 1, 0, 0, 0, 0x0F, 0x05],
        &[0x48, 0x89, 0xC7, 0x31, 0xC0, 0x0F, 0x05],
    ];
    let mut scheduler = Scheduler::new();
    scheduler.start(Process::from_code("types", &code.concat()).expect("there is memory for a page of code"));
    scheduler.run_with(|ended| println!("{ended}"));
}

/// Runs a program that never ends.
fn spins() {
    let mut scheduler = Scheduler::new();
    scheduler.start(Process::from_code("spins", &[0xEB, 0xFE]).expect("there is memory for a page of code"));
    scheduler.run_with(|ended| println!("{ended}"));
}

/// Runs the programs that lie in the host's directory, by their names in order, and tells how each ended.
fn from_files() {
    for name in arguments().skip(1) {
        let image = files::read(name).expect("the host grants it");
        match Process::from_elf(name, &image) {
            Ok(mut process) => println!("{name}: {}", process.run_alone()),
            Err(error) => println!("{name}: {error}"),
        }
    }
}
