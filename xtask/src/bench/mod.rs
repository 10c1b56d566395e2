//! `cargo xtask bench`: measurements, each beside its limit in the same run.

mod process;
mod start;
mod statistics;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::guest;
use crate::workspace::{self, Profile, cargo};
use statistics::{Samples, readable};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// From exec to the guest's first byte, and to the end of the process.
    Start,
    /// Hypercalls and console writes, beside bare exits and the host's own writes.
    Exits,
    /// Going back to a snapshot, and new machines from one, beside bare calls of KVM.
    Snapshots,
}

/// What is measured, and how often.
#[derive(Args, Debug)]
pub struct Options {
    /// What; without it everything.
    name: Option<Name>,

    /// Runs of each program, for what runs whole programs.
    #[arg(long, value_name = "COUNT", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
}

/// Runs one measurement, or all.
///
/// # Errors
/// When something cannot be built, or a measurement fails.
pub fn run(options: &Options) -> Result<ExitCode> {
    let is_wanted = |name| options.name.is_none_or(|own| own == name);
    if is_wanted(Name::Start) {
        start::measure(options.rounds)?;
    }
    if is_wanted(Name::Exits) {
        host_half("exits")?;
    }
    if is_wanted(Name::Snapshots) {
        host_half("snapshots")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the guest half and runs the host half: `vmm/benches`.
fn host_half(name: &str) -> Result<()> {
    let image = guest::build("bench", Profile::Release)?;
    let mut bench = cargo();
    bench.args(["bench", "--quiet", "--package", "vmm", "--bench", name]).env("DUET_BENCH_GUEST", image);
    workspace::check(&mut bench)
}

/// One thing that was measured, and its limit, round by round.
#[derive(Debug)]
struct Measurement {
    name: String,
    samples: Samples,
    limit_name: String,
    limit: Samples,
}

impl Measurement {
    fn new(name: &str, samples: Samples, limit_name: &str, limit: Samples) -> Self {
        Self { name: name.to_owned(), samples, limit_name: limit_name.to_owned(), limit }
    }

    fn print(&self) {
        let ratios = self.samples.ratios(&self.limit);
        let times = |samples: &Samples| {
            let [least, median, p99] = [0.0, 0.5, 0.99].map(|share| readable(samples.quantile(share)));
            format!("{least:>9} {median:>9} {p99:>9}")
        };
        println!(
            "{:26} {}   {:6} {}   ratio {:.2} (of the least {:.2})",
            self.name,
            times(&self.samples),
            self.limit_name,
            times(&self.limit),
            ratios.median(),
            self.samples.least() / self.limit.least(),
        );
    }
}

/// How far a measurement is, for whoever waits at a terminal.
struct Progress {
    is_shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { is_shown: std::io::stderr().is_terminal() }
    }

    fn show(&self, name: &str, round: u32, rounds: u32) {
        if self.is_shown {
            let mut stderr = std::io::stderr();
            let _ = write!(stderr, "\r{name}: {round} of {rounds}\x1b[K\r");
            let _ = stderr.flush();
        }
    }

    /// Makes room for what comes next.
    fn end(&self) {
        if self.is_shown {
            eprint!("\x1b[K");
        }
    }
}
