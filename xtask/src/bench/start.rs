//! `cargo xtask bench start`: from exec to the guest's first byte, and to the end of the process.
//!
//! The whole `vmm` with its default options beside `floor`, which makes the system calls without which no guest prints,
//! and nothing else. Both are static programs and run the same guest.

use anyhow::Result;

use super::measurement::{Goal, Limit, Measurement};
use super::process::Program;
use super::progress::Progress;
use super::statistics::Samples;
use super::unit::Unit;
use crate::guest;
use crate::workspace::{self, Profile};

/// What the guest prints.
const GREETING: &[u8] = b"hello from the guest\n";

/// Runs of each program, unless somebody says how many.
const ROUNDS: u32 = 300;

/// Runs both in turn.
pub(super) fn measure(rounds: Option<u32>, progress: &Progress) -> Result<Vec<Measurement>> {
    progress.say("building vmm and floor");
    let rounds = rounds.unwrap_or(ROUNDS);
    let image = guest::build("01_hello", Profile::Release)?;
    let programs = workspace::build_static(&["vmm", "floor"], Profile::Release)?;
    let vmm = Program::new([programs.join("vmm"), "run".into(), image.clone()]);
    let floor = Program::new([programs.join("floor"), image]);

    let (mut first, mut first_limit) = (Samples::default(), Samples::default());
    let (mut end, mut end_limit) = (Samples::default(), Samples::default());
    for round in 0..rounds {
        progress.show("start", round, rounds);
        let (own, limit) = (vmm.run(GREETING)?, floor.run(GREETING)?);
        first.add(own.first_byte);
        first_limit.add(limit.first_byte);
        end.add(own.end);
        end_limit.add(limit.end);
    }
    let goal = Goal { ratio: Some(1.35), median: None };
    let beside = |name, unit, own, limit| {
        let limit = Limit { name: "floor".to_owned(), samples: limit };
        Measurement::beside("start", name, unit, own, limit)
    };
    Ok(vec![
        beside("exec to first guest byte", Unit::Nanoseconds, first, first_limit).promised(goal),
        beside("exec to end", Unit::Nanoseconds, end, end_limit).promised(goal),
    ])
}
