//! `cargo xtask lab ksm`: what the host saves when several machines hold equal pages.
//!
//! KSM, the host kernel's thread `ksmd`, looks through memory that was given to it by `madvise(MADV_MERGEABLE)`, which
//! is what `vmm run --ksm` does with guest RAM, and leaves one write-protected copy of pages that are equal
//! (Linux Documentation/admin-guide/mm/ksm.rst). Here some machines of the same guest hold equal pages, and some of
//! their own for comparison, and we look on: at the kernel's counters, and at every machine's page tables.
//!
//! The guest's half is `guest-kernel/src/bin/lab_memory.rs`.

mod guests;
mod kernel;
mod process;
mod sample;
mod show;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use guests::{Content, Guests};
use kernel::{Ksm, State, Switched};
use sample::{Counters, Sample};

/// What can be chosen.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How many machines run at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(2..=64))]
    vms: u32,
    /// MiB in each machine that are equal in all of them.
    #[arg(long, default_value_t = 4, value_name = "MIB", value_parser = clap::value_parser!(u32).range(0..=8))]
    equal: u32,
    /// MiB in each machine that no other has.
    #[arg(long, default_value_t = 1, value_name = "MIB", value_parser = clap::value_parser!(u32).range(0..=8))]
    own: u32,
    /// Look for at most so many seconds; it ends earlier when nothing is left to merge.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Switch KSM on in the host's kernel while this runs, and back at the end. Needs root.
    #[arg(long)]
    enable_ksm: bool,
    /// Print what was seen as JSON.
    #[arg(long)]
    json: bool,
}

/// How often is looked.
const INTERVAL: Duration = Duration::from_millis(250);

/// All that was seen.
#[derive(Debug, Serialize)]
struct Seen {
    /// Whether `ksmd` runs, and why not.
    ksm: State,
    vms: u32,
    equal_mib: u32,
    own_mib: u32,
    /// In the order of time; one when `ksmd` does not run.
    samples: Vec<Sample>,
}

/// Runs the machines and looks.
///
/// # Errors
/// When something cannot be built, started or read, and when KSM was to be switched and cannot be.
pub(super) fn run(options: &Options) -> Result<ExitCode> {
    let ends = ends_at_signals()?;
    let ksm = Ksm::of_this_host();
    // Declared before the guests: they are gone when the switch goes back.
    let _switched: Option<Switched> = if options.enable_ksm { Some(ksm.switch_on()?) } else { None };
    let state = ksm.state()?;
    let content = Content { equal_mib: options.equal, own_mib: options.own };
    let guests = Guests::start(options.vms, content, Duration::from_secs(options.seconds))?;
    if let Some(advice) = state.advice() {
        eprintln!("xtask: {advice}");
    }
    let samples = watch(&guests, &ksm, state, options, &ends)?;
    guests.end();

    let seen = Seen { ksm: state, vms: options.vms, equal_mib: options.equal, own_mib: options.own, samples };
    let mut stdout = io::stdout().lock();
    if options.json {
        writeln!(stdout, "{}", serde_json::to_string_pretty(&seen)?)?;
    } else {
        write!(stdout, "{}", show::table(&seen))?;
    }
    Ok(ExitCode::from(if ends.load(Ordering::Relaxed) { INTERRUPTED } else { 0 }))
}

/// Ctrl-C, as `vmm run` says it.
const INTERRUPTED: u8 = 130;

/// A flag that Ctrl-C and its like set, so that everything is put back before this process ends.
fn ends_at_signals() -> Result<Arc<AtomicBool>> {
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ends)).context("cannot catch signals")?;
    }
    Ok(ends)
}

/// Looks again and again: until nothing is left to merge, the time is over, or somebody has enough.
fn watch(
    guests: &Guests,
    ksm: &Ksm,
    state: State,
    options: &Options,
    ends: &AtomicBool,
) -> Result<Vec<Sample>> {
    let start = Instant::now();
    let mut samples = Vec::new();
    loop {
        let looked = Sample::take(start.elapsed(), ksm.counters(), guests);
        // Ctrl-C goes to the guests too, so they may be gone before we know.
        if ends.load(Ordering::Relaxed) {
            break;
        }
        samples.push(looked?);
        progress(&samples, options);
        let is_over = state != State::On
            || start.elapsed() >= Duration::from_secs(options.seconds)
            || is_settled(&samples);
        if is_over {
            break;
        }
        thread::sleep(INTERVAL);
    }
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    Ok(samples)
}

/// Whether `ksmd` has been through all memory twice without a change: it merges a page only when it finds the page as
/// it was a scan before. With smart scan (`smart_scan`, since Linux 6.7) it also skips pages that it did not merge
/// before, so a third time is waited for.
fn is_settled(samples: &[Sample]) -> bool {
    let scans = |sample: &Sample| sample.ksm.map_or(0, |ksm: Counters| ksm.full_scans);
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return false };
    let is_alike = |sample: &&Sample| sample.guests.merged == last.guests.merged;
    let since = samples.iter().rev().take_while(is_alike).last().unwrap_or(last);
    scans(last) >= scans(since) + 2 && scans(last) >= scans(first) + 3
}

fn progress(samples: &[Sample], options: &Options) {
    if let (true, Some(last)) = (io::stderr().is_terminal(), samples.last()) {
        eprint!("\r\x1b[K{}", show::progress(last, options.vms, options.seconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_settled_after_two_scans_without_a_change() {
        let samples = |scans_and_merged: &[(u64, u64)]| -> Vec<Sample> {
            scans_and_merged.iter().map(|&(scans, merged)| Sample::of_test(scans, merged)).collect()
        };
        assert!(!is_settled(&[]));
        assert!(!is_settled(&samples(&[(5, 0), (6, 0), (7, 0)])), "the first scans merge nothing");
        assert!(!is_settled(&samples(&[(5, 0), (7, 90), (8, 100), (9, 100)])));
        assert!(is_settled(&samples(&[(5, 0), (7, 90), (8, 100), (9, 100), (10, 100)])));
    }
}
