//! `cargo xtask bench memory`: what a start costs by the size of guest RAM, and of the pages that map it.
//!
//! The whole `vmm run` as in `start.rs`, for RAM from 2 MiB to 64 GiB. The points of a curve take turns, and the limit of
//! each is the machine of 2 MiB in the same round. What is measured inside a machine is in `vmm/benches/memory/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use super::measurement::{At, Goal, Limit, Measurement};
use super::process::Program;
use super::progress::Progress;
use super::statistics::Samples;
use super::unit::Unit;
use crate::guest;
use crate::workspace::{self, Profile};

/// What the guest prints.
const GREETING: &[u8] = b"hello from the guest\n";

/// Runs of each machine, unless somebody says how many.
const ROUNDS: u32 = 100;
/// Runs of each in which memory and page faults are counted: they hardly vary.
const COUNTED_ROUNDS: u32 = 5;

/// RAM of the machines; the first is the limit of the others.
const SIZES: [u64; 6] = [2 << 20, 16 << 20, 128 << 20, 1 << 30, 8 << 30, 64 << 30];
/// What `--page-size` takes. The first is the default, and the one of which something is promised.
const PAGE_SIZES: [&str; 3] = ["2m", "4k", "1g"];
/// A large machine starts as fast as a small one. It has more page tables: a page for each GiB.
const PROMISED: Goal = Goal { ratio: Some(1.1), median: None };

/// Runs all machines in turn.
///
/// # Errors
/// When something cannot be built, or a guest does not run.
pub(super) fn measure(rounds: Option<u32>, progress: &Progress) -> Result<Vec<Measurement>> {
    progress.say("building vmm");
    let image = guest::build("01_hello", Profile::Release)?;
    let vmm = workspace::build_static(&["vmm"], Profile::Release)?.join("vmm");
    let mut found = Vec::new();
    for page_size in PAGE_SIZES {
        if let Some(reason) = why_not(&vmm, page_size, &image)? {
            progress.end();
            eprintln!("xtask: nothing is measured of --page-size {page_size}: {reason}");
            continue;
        }
        let machine = |size: u64| {
            let words = ["run", "--memory", &size.to_string(), "--page-size", page_size].map(PathBuf::from);
            (size, Program::new([vmm.clone()].into_iter().chain(words).chain([image.clone()])))
        };
        found.extend(measure_pages(page_size, &SIZES.map(machine), rounds, progress)?);
    }
    Ok(found)
}

/// Why there are no machines whose RAM is mapped by pages of this size: what the VMM says; nothing if there are some.
fn why_not(vmm: &Path, page_size: &str, image: &Path) -> Result<Option<String>> {
    let mut run = Command::new(vmm);
    run.args(["run", "--page-size", page_size]).arg(image).stdin(Stdio::null());
    let output = run.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((!output.status.success()).then(|| said.trim().trim_start_matches("vmm: ").to_owned()))
}

/// The curves of one size of pages.
fn measure_pages(
    page_size: &str,
    machines: &[(u64, Program)],
    rounds: Option<u32>,
    progress: &Progress,
) -> Result<Vec<Measurement>> {
    let mut first = vec![Samples::default(); machines.len()];
    let (mut end, mut peak, mut faults) = (first.clone(), first.clone(), first.clone());
    let rounds = rounds.unwrap_or(ROUNDS);
    for round in 0..rounds {
        progress.show(&format!("start, {page_size} pages"), round, rounds);
        for (((_, machine), first), end) in machines.iter().zip(&mut first).zip(&mut end) {
            let run = machine.run(GREETING)?;
            first.add(run.first_byte);
            end.add(run.end);
        }
    }
    for _ in 0..rounds.min(COUNTED_ROUNDS) {
        for (((_, machine), peak), faults) in machines.iter().zip(&mut peak).zip(&mut faults) {
            let counts = machine.counts()?;
            peak.add_number(counts.peak_memory as f64);
            faults.add_number(counts.page_faults as f64);
        }
    }
    let promised = (page_size == PAGE_SIZES[0]).then_some(PROMISED);
    let sizes: Vec<u64> = machines.iter().map(|(size, _)| *size).collect();
    let curve = |what: &str, unit, samples| {
        let goal = promised.filter(|_| unit == Unit::Nanoseconds);
        points(&format!("{what}, {page_size} pages"), unit, &sizes, samples, goal)
    };
    Ok([
        curve("exec to first guest byte", Unit::Nanoseconds, first),
        curve("exec to end", Unit::Nanoseconds, end),
        curve("peak memory", Unit::Bytes, peak),
        curve("page faults", Unit::Count, faults),
    ]
    .concat())
}

/// A curve over the size of RAM. Its first point is the limit of all others, and has none.
fn points(
    name: &str,
    unit: Unit,
    sizes: &[u64],
    samples: Vec<Samples>,
    goal: Option<Goal>,
) -> Vec<Measurement> {
    let smallest = samples.first().cloned().unwrap_or_default();
    let limit = |index| {
        (index > 0).then(|| Limit { name: Unit::Bytes.readable(sizes[0] as f64), samples: smallest.clone() })
    };
    let point = |(index, (samples, size)): (usize, (Samples, &u64))| Measurement {
        group: "memory".to_owned(),
        name: name.to_owned(),
        at: Some(At { axis: "guest RAM".to_owned(), value: *size as f64, unit: Unit::Bytes }),
        unit,
        samples,
        limit: limit(index),
        goal: goal.filter(|_| index > 0),
    };
    samples.into_iter().zip(sizes).enumerate().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_machine_is_the_limit_of_all_others() {
        let samples = [100.0, 101.0, 120.0].map(|time| Samples::from(&[time][..]));

        let curve =
            points("end", Unit::Nanoseconds, &[2 << 20, 16 << 20, 1 << 30], samples.into(), Some(PROMISED));

        let told: Vec<_> = curve.iter().map(|point| (point.title(), point.meets_goal())).collect();
        let expected = [("end, 2 MiB", None), ("end, 16 MiB", Some(true)), ("end, 1 GiB", Some(false))];
        assert_eq!(told, expected.map(|(title, met)| (title.to_owned(), met)));
        assert!(curve.iter().all(|point| point.check().is_ok()));
        assert_eq!(curve[2].limit.as_ref().map(|limit| limit.name.as_str()), Some("2 MiB"));
    }
}
