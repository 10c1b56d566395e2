//! `cargo xtask bench`: measurements, each beside its limit in the same run; as a table, a file, plots, a comparison.
//!
//! ```text
//! start, and the host halves in vmm/benches ──► Record ──► table │ --json │ --plot
//!                                                 --compare OLD.json ──► Comparison ──► table, exit code
//! ```

mod compare;
mod entrant;
mod group;
mod guard;
mod host_half;
mod machine;
mod measurement;
mod memory;
mod plot;
mod process;
mod progress;
mod record;
mod start;
mod statistics;
mod table;
#[cfg(test)]
mod tests;
mod traced;
mod unit;

use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use compare::Comparison;
use entrant::Rival;
use group::{Group, HOST_HALVES};
use measurement::Measurement;
use progress::Progress;
use record::Record;
use table::Colours;

use crate::workspace::Profile;

/// What is measured, and what becomes of it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Options {
    /// What; without it everything.
    #[arg(value_name = "NAME")]
    groups: Vec<Group>,

    /// Show what can be measured.
    #[arg(long)]
    list: bool,

    /// Rounds of each measurement; without it as many as each deserves.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: Option<u32>,

    /// Write all samples, and on what they were taken, to a file; `-` is stdout, and the table then goes to stderr.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,

    /// Draw distributions and curves into a folder, for which index.html is the page.
    #[arg(long, value_name = "FOLDER")]
    plot: Option<PathBuf>,

    /// Say what has changed since a file of --json was written.
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,

    /// End with 1 when a goal is missed, or when --compare finds something that became worse.
    #[arg(long)]
    check: bool,

    /// Measure unoptimised programs in `start`, which are built sooner: to try the command, for their times tell nothing.
    #[arg(long, hide = true)]
    unoptimised: bool,

    /// Let another program take its turns in `start`, from exec to end; `{}` is the path of the guest's image. May be repeated.
    #[arg(long, value_name = "COMMAND")]
    vs: Vec<Rival>,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask bench start                       the VMM as a whole, beside the floor
  cargo xtask bench --json old.json             keep every sample of everything
  cargo xtask bench exits --compare old.json    what has changed since
  cargo xtask bench --plot plots                see distributions and curves in plots/index.html
  cargo xtask bench start --rounds 20 --vs 'qemu-system-x86_64 -accel kvm -kernel {} -nographic'";

/// The exit code of a check that finds something.
const FOUND: u8 = 1;

/// Measures, and shows what was found.
///
/// # Errors
/// When something cannot be built, a measurement fails, or a file cannot be read or written.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.list {
        print!("{}", group::list());
        return Ok(ExitCode::SUCCESS);
    }
    if !options.vs.is_empty() && !options.wants(Group::Start) {
        bail!("--vs takes its turns in `start`, which is not among what is measured");
    }
    // What is wrong with a file is said before minutes have passed.
    let before = options.compare.as_deref().map(Record::read).transpose()?.map(Comparison::new);
    let mut record = Record::begin();
    record.measurements = measure(options)?;
    show(options, &record, before.as_ref())?;
    let is_bad = record.measurements.iter().any(|found| found.meets_goal() == Some(false))
        || before.is_some_and(|before| before.has_become_worse(&record.measurements));
    Ok(if options.check && is_bad { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

fn measure(options: &Options) -> Result<Vec<Measurement>> {
    guard::heed_ctrl_c()?;
    let progress = Progress::new();
    let found = measure_all(options, &progress);
    progress.end();
    found
}

fn measure_all(options: &Options, progress: &Progress) -> Result<Vec<Measurement>> {
    let all = Group::value_variants().iter().copied();
    let wanted: Vec<Group> = all.filter(|group| options.wants(*group)).collect();
    let mut found = Vec::new();
    if wanted.contains(&Group::Start) {
        let profile = if options.unoptimised { Profile::Debug } else { Profile::Release };
        found.extend(start::measure(profile, options.rounds, &options.vs, progress)?);
    }
    if wanted.contains(&Group::Memory) {
        found.extend(memory::measure(options.rounds, progress)?);
    }
    for (bench, groups) in HOST_HALVES {
        let groups: Vec<Group> = groups.iter().copied().filter(|group| wanted.contains(group)).collect();
        if !groups.is_empty() {
            found.extend(host_half::measure(bench, &groups, options.rounds, progress)?);
        }
    }
    // A group may come from several places.
    found.sort_by_key(|found| wanted.iter().position(|group| group.name() == found.group));
    Ok(found)
}

/// The table, the file, the plots.
fn show(options: &Options, record: &Record, before: Option<&Comparison>) -> Result<()> {
    let has_no_stdout = options.json.as_deref() == Some(Path::new("-"));
    let is_terminal = if has_no_stdout { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
    let colours =
        Colours { are_shown: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty()) };
    let mut text = table::render(&record.measurements, before, colours);
    if let Some(before) = before {
        text += &before.notes(record);
    }
    if has_no_stdout {
        eprint!("{text}")
    } else {
        print!("{text}")
    }
    match &options.json {
        Some(_) if has_no_stdout => print!("{}", record.to_json()?),
        Some(path) => {
            fs::write(path, record.to_json()?).with_context(|| format!("cannot write {}", path.display()))?;
        }
        None => {}
    }
    options.plot.as_deref().map_or(Ok(()), |folder| plot::write(folder, record))
}

impl Options {
    fn wants(&self, group: Group) -> bool {
        self.groups.is_empty() || self.groups.contains(&group)
    }
}
