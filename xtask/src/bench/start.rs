//! `cargo xtask bench start`: from exec to the guest's first byte, and to the end of the process.
//!
//! The whole `vmm` with its default options beside `floor`, which makes the system calls without which no guest prints,
//! and nothing else. Both are static programs and run the same guest.

use anyhow::Result;

use super::process::Program;
use super::statistics::Samples;
use super::{Measurement, Progress};
use crate::guest;
use crate::workspace::{self, Profile};

/// What the guest prints.
const GREETING: &[u8] = b"hello from the guest\n";

/// Runs both in turn, `rounds` times.
pub(super) fn measure(rounds: u32) -> Result<()> {
    let progress = Progress::new();
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
    progress.end();
    println!(
        "{:26} {:>9} {:>9} {:>9}   {:6} {:>9} {:>9} {:>9}",
        "", "least", "median", "p99", "", "least", "median", "p99"
    );
    Measurement::new("exec to first guest byte", first, "floor", first_limit).print();
    Measurement::new("exec to end", end, "floor", end_limit).print();
    let kib = |program: &Program| program.peak_memory().map(|bytes| bytes >> 10);
    println!("{:26} {:>5} KiB   {:27} floor  {:>5} KiB", "peak memory", kib(&vmm)?, "", kib(&floor)?);
    Ok(())
}
