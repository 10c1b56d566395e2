//! `cargo xtask bench`: measurements, each beside its limit in the same run.

mod host_half;
mod measurement;
mod memory;
mod process;
mod progress;
mod start;
mod statistics;
mod table;
mod unit;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use measurement::Measurement;
use progress::Progress;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// From exec to the guest's first byte, and to the end of the process; memory, system calls, page faults.
    Start,
    /// Round trips out of the guest, beside a bare loop around KVM_RUN.
    Exits,
    /// Text out of the guest, beside the host's own writes.
    Console,
    /// What guest RAM costs: by its size, by its pages, by how much of it was touched.
    Memory,
    /// Going back to a snapshot, and new machines from one, beside bare calls of KVM.
    Snapshots,
}

impl Group {
    /// What is typed.
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Exits => "exits",
            Self::Console => "console",
            Self::Memory => "memory",
            Self::Snapshots => "snapshots",
        }
    }
}

/// What is measured, and how often.
#[derive(Args, Debug)]
pub struct Options {
    /// What; without it everything.
    #[arg(value_name = "NAME")]
    groups: Vec<Group>,

    /// Rounds of each measurement; without it as many as it deserves.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: Option<u32>,
}

/// Measures, and shows what was found.
///
/// # Errors
/// When something cannot be built, or a measurement fails.
pub fn run(options: &Options) -> Result<ExitCode> {
    let progress = Progress::new();
    let measurements = measure(options, &progress);
    progress.end();
    print!("{}", table::render(&measurements?));
    Ok(ExitCode::SUCCESS)
}

fn measure(options: &Options, progress: &Progress) -> Result<Vec<Measurement>> {
    let wanted: Vec<Group> =
        Group::value_variants().iter().copied().filter(|group| options.wants(*group)).collect();
    let mut found = Vec::new();
    if wanted.contains(&Group::Start) {
        found.extend(start::measure(options.rounds, progress)?);
    }
    if wanted.contains(&Group::Memory) {
        found.extend(memory::measure(options.rounds, progress)?);
    }
    for (bench, groups) in HOST_HALVES {
        if groups.iter().any(|group| wanted.contains(group)) {
            found.extend(host_half::measure(bench, &wanted, options.rounds, progress)?);
        }
    }
    Ok(found)
}

/// The benchmarks of `vmm/benches`, and which groups each measures.
const HOST_HALVES: [(&str, &[Group]); 3] = [
    ("hypercall", &[Group::Exits, Group::Console]),
    ("memory", &[Group::Memory]),
    ("snapshots", &[Group::Snapshots]),
];

impl Options {
    fn wants(&self, group: Group) -> bool {
        self.groups.is_empty() || self.groups.contains(&group)
    }
}
