//! Making many machines from a snapshot: how many a second, and what each takes of the host's memory.

use std::fs;
use std::time::Instant;

use serde_json::json;
use vmm::Snapshot;

use crate::told::{measured, progress, rounds};
use crate::{Outcome, surroundings, to_first_exit, to_first_exit_of};

pub(crate) fn a_second(snapshot: &Snapshot) -> Outcome<()> {
    let rounds = rounds(20);
    for threads in [1, 2] {
        let name = format!("machines on {threads} thread{}", if threads == 1 { "" } else { "s" });
        let mut rates = Vec::new();
        for done in 1..=rounds {
            rates.push(rate(snapshot, threads)?);
            progress(&name, done, rounds);
        }
        measured(json!({ "group": "snapshots", "name": name, "unit": "per_second", "samples": rates }));
    }
    Ok(())
}

/// How many machines a second are made, run to their first exit and dropped.
fn rate(snapshot: &Snapshot, threads: u32) -> Outcome<f64> {
    const MACHINES: u32 = 100;
    let make = || {
        for _ in 0..MACHINES {
            let machine = snapshot.spawn(surroundings()).map_err(|error| error.to_string())?;
            to_first_exit_of(machine).map_err(|error| error.to_string())?;
        }
        Ok::<_, String>(())
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..threads).map(|_| scope.spawn(make)).collect();
        makers.into_iter().try_for_each(|maker| maker.join().map_err(|_| "a maker panicked".to_owned())?)
    })?;
    Ok(f64::from(MACHINES * threads) / start.elapsed().as_secs_f64())
}

/// What each of many that live at once takes of memory, beyond what it has written: when it waits, and when it has run.
pub(crate) fn at_once(snapshot: &Snapshot) -> Outcome<()> {
    const MACHINES: usize = 200;
    let rounds = rounds(6);
    let (mut waiting, mut run) = (Vec::new(), Vec::new());
    for done in 1..=rounds {
        let before = proportional_size()?;
        let mut machines =
            (0..MACHINES).map(|_| snapshot.spawn(surroundings())).collect::<Result<Vec<_>, _>>()?;
        waiting.push((proportional_size()? - before) / MACHINES as f64);
        machines.iter_mut().try_for_each(to_first_exit)?;
        let written = machines.iter().map(|vm| vm.memory().own_bytes()).sum::<u64>() as f64;
        run.push((proportional_size()? - before - written).max(0.0) / MACHINES as f64);
        progress("memory of clones", done, rounds);
    }
    for (name, samples) in
        [("memory of a clone that waits", waiting), ("memory of a clone that has run", run)]
    {
        measured(json!({
            "group": "snapshots",
            "name": name,
            "unit": "bytes",
            "samples": samples,
            "goal": { "median": 100 << 10 },
        }));
    }
    Ok(())
}

/// A line of /proc/self/smaps_rollup, in bytes.
fn proportional_size() -> Outcome<f64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}
