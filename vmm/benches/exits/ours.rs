//! Our VMM as a user has it: a machine with default options, run piece by piece by `Vm::run`.

use std::fs::File;
use std::io::PipeWriter;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use vmm::observe::{Observer, Stats};
use vmm::{Console, KernelSource, RunReport, StopReason, Vm, VmConfig};

use crate::Outcome;

/// A machine whose guest does its work again and again, and ends a run with code 0 after each time.
pub(crate) struct Ours(Vm);

impl Ours {
    /// The guest that does `what`, so `often` a run; nobody listens to it.
    pub(crate) fn build(guest: &Path, what: &str, often: u32) -> Outcome<Self> {
        Self::start(config(guest, what, often))
    }

    /// The same, and it prints to `pipe`.
    pub(crate) fn build_with_console(
        guest: &Path,
        what: &str,
        often: u32,
        pipe: PipeWriter,
    ) -> Outcome<Self> {
        let mut config = config(guest, what, often);
        config.console = Console::to_file(File::from(OwnedFd::from(pipe)));
        Self::start(config)
    }

    /// What a guest does once, at its start, belongs to no measurement: the first run is none.
    fn start(config: VmConfig) -> Outcome<Self> {
        let mut own = Self(Vm::build(config)?);
        own.run()?;
        Ok(own)
    }

    /// Makes every access to registers an ioctl, as on hosts without KVM_CAP_SYNC_REGS.
    pub(crate) fn forgo_register_sync(mut self) -> Outcome<Self> {
        self.0.forgo_register_sync()?;
        Ok(self)
    }

    /// The time of one run.
    pub(crate) fn run(&mut self) -> Outcome<Duration> {
        let start = Instant::now();
        let report = self.0.run()?;
        let elapsed = start.elapsed();
        ended_well(&report)?;
        Ok(elapsed)
    }

    /// The time of one run whose exits are added up by line.
    pub(crate) fn run_with_stats(&mut self) -> Outcome<Duration> {
        self.run_added_up().map(|(elapsed, _)| elapsed)
    }

    /// Makes sure that they are.
    pub(crate) fn check_stats(&mut self) -> Outcome<()> {
        let (_, stats) = self.run_added_up()?;
        let total = stats.summary(&self.0.symbols()).total.exits;
        if total == stats.counts().total() { Ok(()) } else { Err(format!("{total} were added up").into()) }
    }

    fn run_added_up(&mut self) -> Outcome<(Duration, Stats)> {
        let mut stats = Stats::new(&self.0);
        let start = Instant::now();
        let report = self.0.run_observed(&mut stats)?;
        let elapsed = start.elapsed();
        ended_well(&report)?;
        Ok((elapsed, stats))
    }
}

/// The machine that the benchmarks' guest runs in: what `vmm run` has by default.
pub(crate) fn config(guest: &Path, what: &str, often: u32) -> VmConfig {
    let mut config = VmConfig::new(KernelSource::File(guest.to_owned()));
    config.arguments = vec![what.to_owned(), often.to_string()];
    config
}

fn ended_well(report: &RunReport) -> Outcome<()> {
    if report.stop == (StopReason::Exited { code: 0 }) { Ok(()) } else { Err(report.to_string().into()) }
}
