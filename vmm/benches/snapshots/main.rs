//! What it costs to go back to a snapshot and to make machines from one, each beside the limit that was measured in the
//! same run.
//!
//! `cargo xtask bench snapshots` builds the guest and runs this. Measurement and limit take turns, round by round, and the
//! ratio is made within each round.
//!
//! | measurement | its limit |
//! |---|---|
//! | going back in place, after the guest has written to 16 pages | the calls of KVM that set what a guest may have changed, and a copy of 16 pages |
//! | a new machine, up to its first exit | the same by bare calls, of a VM that maps a file with the same RAM |
//! | taking one that a pool has ready, up to its first exit | that, too |
//! | a new machine | one that is built and boots to where the snapshot was taken |
//!
//! Then how many machines a second are made, run to their first exit and dropped, by one thread and by two; and what each
//! of many that live at once takes of the host's memory.

mod bare;
mod in_place;
mod many;
mod one_machine;
#[path = "../told/mod.rs"]
mod told;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use told::{Pairs, ROUNDS, rounds};
use vmm::{KernelSource, Snapshot, SnapshotCalls, StopReason, Surroundings, Vm, VmConfig};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let guest = std::env::var_os("DUET_BENCH_GUEST").ok_or("start this by `cargo xtask bench`")?;
    let guest = PathBuf::from(guest);
    in_place::measure(&guest)?;
    let (_, snapshot) = kept(&guest)?;
    one_machine::measure(&guest, &snapshot)?;
    many::a_second(&snapshot)?;
    many::at_once(&snapshot)
}

/// Measures by turns, and tells what was found. What a deed gives is dropped after its time was taken.
fn by_turns<Own, Limit>(
    name: &str,
    limit_name: &'static str,
    goal: &Value,
    mut own: impl FnMut() -> Outcome<(Own, Duration)>,
    mut limit: impl FnMut() -> Outcome<(Limit, Duration)>,
) -> Outcome<()> {
    let rounds = rounds(ROUNDS);
    let mut pairs = Pairs::new(name, limit_name, rounds);
    for _ in 0..rounds {
        let own = own()?.1;
        let limit = limit()?.1;
        pairs.add(own, limit);
    }
    pairs.tell("snapshots", goal);
    Ok(())
}

fn timed<T>(deed: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Duration)> {
    let start = Instant::now();
    let done = deed()?;
    Ok((done, start.elapsed()))
}

/// A guest that writes to 16 pages and asks, again and again, kept where it asks first.
fn kept(guest: &Path) -> Outcome<(Vm, Snapshot)> {
    let mut vm = Vm::build(config(guest))?;
    to_first_exit(&mut vm)?;
    let snapshot = vm.snapshot()?;
    Ok((vm, snapshot))
}

fn config(guest: &Path) -> VmConfig {
    let mut config = VmConfig::new(KernelSource::File(guest.to_owned()));
    config.arguments = vec!["touch".to_owned(), u32::MAX.to_string()];
    config.snapshots = SnapshotCalls::EndTheRun;
    config
}

fn to_first_exit(vm: &mut Vm) -> Outcome<()> {
    match vm.run()?.stop {
        StopReason::SnapshotAsked => Ok(()),
        other => Err(other.to_string().into()),
    }
}

fn surroundings() -> Surroundings {
    Surroundings { snapshots: SnapshotCalls::EndTheRun, ..Surroundings::default() }
}

fn to_first_exit_of(mut vm: Vm) -> Outcome<Vm> {
    to_first_exit(&mut vm)?;
    Ok(vm)
}
