//! `cargo xtask bench start`: from exec to the guest's first byte and to the end of the process, and what that takes.
//!
//! The whole `vmm` with its default options beside `floor`, which makes the system calls without which no guest prints,
//! and nothing else. Both are static programs and run the same guest. Rivals, other programs that somebody wants to see
//! beside ours, take their turns in the same rounds.

use anyhow::{Context, Result};

use super::entrant::{Entrant, Rival};
use super::measurement::{Goal, Limit, Measurement};
use super::process::Program;
use super::progress::Progress;
use super::statistics::Samples;
use super::unit::Unit;
use crate::workspace::{self, Profile};
use crate::{guest, layout};

/// What the guest prints.
const GREETING: &[u8] = b"hello from the guest\n";

/// Runs of each program, unless somebody says how many.
const ROUNDS: u32 = 300;

/// What does not depend on time is seen in fewer.
const COUNTED_ROUNDS: u32 = 20;

/// Most of what is promised is a ratio.
const RATIO: Goal = Goal { ratio: Some(1.35), median: None };
const MEMORY: Goal = Goal { ratio: None, median: Some((3 << 20) as f64) };

/// Runs all in turn.
///
/// # Errors
/// When something cannot be built, or does not print or end as it should.
pub(super) fn measure(
    profile: Profile,
    rounds: Option<u32>,
    rivals: &[Rival],
    progress: &Progress,
) -> Result<Vec<Measurement>> {
    progress.say("building vmm and floor");
    let image = guest::build("01_hello", profile)?;
    let programs = workspace::build_static(&["vmm", "floor"], profile)?;
    let [vmm, floor] = ["vmm", "floor"].map(|name| programs.join(name));
    if profile == Profile::Release
        && let Some(complaint) = layout::complaint(&vmm)?
    {
        eprintln!("xtask: {complaint}");
    }
    let sizes = [&vmm, &floor].map(|program| program.metadata().map(|file| file.len() as f64));
    let mut entrants = vec![
        Entrant::ours("vmm", Program::new([vmm.as_path(), "run".as_ref(), &image]), GREETING),
        Entrant::ours("floor", Program::new([floor.as_path(), &image]), GREETING),
    ];
    for rival in rivals {
        entrants.push(Entrant::rival(rival, &image, &entrants));
    }
    take_turns(&mut entrants, rounds.unwrap_or(ROUNDS), progress)?;

    let (vmm, others) = entrants.split_first().context("the VMM is first")?;
    let (floor, rivals) = others.split_first().context("then the floor")?;
    let mut found = beside_floor(vmm, floor);
    let [own, limit] = sizes.map(|size| size.map(|size| Samples::from(&[size][..])));
    found.push(beside("binary size", Unit::Bytes, &own?, "floor", &limit?));
    found.extend(rivals.iter().flat_map(|rival| beside_rival(vmm, rival)));
    Ok(found)
}

fn take_turns(entrants: &mut [Entrant], rounds: u32, progress: &Progress) -> Result<()> {
    for round in 0..rounds {
        progress.show("start", round, rounds);
        entrants.iter_mut().try_for_each(Entrant::take_time)?;
    }
    let rounds = rounds.min(COUNTED_ROUNDS);
    for round in 0..rounds {
        progress.show("start: calls and memory", round, rounds);
        entrants.iter_mut().try_for_each(Entrant::count)?;
    }
    Ok(())
}

fn beside_floor(vmm: &Entrant, floor: &Entrant) -> Vec<Measurement> {
    let beside =
        |name, unit, of: fn(&Entrant) -> &Samples| beside(name, unit, of(vmm), &floor.name, of(floor));
    vec![
        beside("exec to first guest byte", Unit::Nanoseconds, |of| &of.first_byte).promised(RATIO),
        beside("exec to end", Unit::Nanoseconds, |of| &of.end).promised(RATIO),
        beside("peak memory", Unit::Bytes, |of| &of.peak_memory).promised(MEMORY),
        beside("system calls", Unit::Count, |of| &of.system_calls),
        beside("page faults", Unit::Count, |of| &of.page_faults),
    ]
}

fn beside_rival(vmm: &Entrant, rival: &Entrant) -> Vec<Measurement> {
    let limit_name = rival.name_and_status();
    let beside = |name: &str, unit, of: fn(&Entrant) -> &Samples| {
        beside(&format!("{name}, {}", rival.name), unit, of(vmm), &limit_name, of(rival))
    };
    vec![
        beside("exec to first byte", Unit::Nanoseconds, |of| &of.first_byte),
        beside("exec to end", Unit::Nanoseconds, |of| &of.end),
        beside("peak memory", Unit::Bytes, |of| &of.peak_memory),
        beside("system calls", Unit::Count, |of| &of.system_calls),
        beside("page faults", Unit::Count, |of| &of.page_faults),
    ]
}

fn beside(name: &str, unit: Unit, own: &Samples, limit_name: &str, limit: &Samples) -> Measurement {
    let limit = Limit { name: limit_name.to_owned(), samples: limit.clone() };
    Measurement::beside("start", name, unit, own.clone(), limit)
}
