//! One test in a fresh machine.

use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use shared_abi::exit_code;

use crate::config::VmConfig;
use crate::console::{Captured, Console};
use crate::coverage::Coverage;
use crate::debug::Diagnosis;
use crate::error::Result;
use crate::guest_tests::budget;
use crate::guest_tests::image::{GuestTest, TestImage};
use crate::guest_tests::verdict::Verdict;
use crate::next::StopReason;
use crate::report::RunReport;
use crate::vm::Vm;

/// What all tests of a run have in common.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a test may take that says nothing of its own.
    pub timeout: Duration,
    /// Makes the writer that shows a test's console while it runs; what it shows is judged all the same.
    pub show: Option<fn() -> Box<dyn Write + Send>>,
}

/// Runs one test.
///
/// # Errors
/// What the host could not do. That a test does not hold is in the verdict.
pub fn run(image: &TestImage, test: &GuestTest, options: &Options) -> Result<Verdict> {
    run_by(image, test, options, 1, |vm| match test.max_instructions {
        None => Ok((vm.run()?, None)),
        Some(_) => {
            let (report, instructions) = budget::run_and_count(vm, test.function)?;
            Ok((report, Some(instructions)))
        }
    })
}

/// Runs one test as [`run`] does, and adds the lines it reaches to `coverage`. Its time limits are larger by
/// [`Method::patience`](crate::coverage::Method::patience), and nobody counts its instructions.
///
/// # Errors
/// As [`run`].
pub fn run_covered(
    image: &TestImage,
    test: &GuestTest,
    options: &Options,
    coverage: &Coverage,
) -> Result<Verdict> {
    run_by(image, test, options, coverage.method().patience(), |vm| Ok((coverage.run(vm)?, None)))
}

fn run_by(
    image: &TestImage,
    test: &GuestTest,
    options: &Options,
    patience: u32,
    run: impl FnOnce(&mut Vm) -> Result<(RunReport, Option<u64>)>,
) -> Result<Verdict> {
    let start = Instant::now();
    let (console, captured) = Console::capture();
    let mut config = VmConfig::new(image.kernel());
    config.vcpus = test.vcpus;
    config.arguments = vec![test.name.clone(), test.index.to_string()];
    config.timeout = Some(test.timeout.unwrap_or(options.timeout).saturating_mul(patience));
    config.console = match options.show {
        Some(show) => Console::to(Both { captured: captured.clone(), shown: show() }),
        None => console,
    };
    let mut vm = Vm::build(config)?;
    let (report, instructions) = run(&mut vm)?;
    let mut printed = captured.text();
    if captured.is_full() {
        printed.push_str("\n(what it printed further was not kept)\n");
    }
    let mut verdict = Verdict::of(test, report, instructions, printed, start.elapsed());
    if !verdict.has_held() {
        verdict.diagnosis = explain(&vm, &verdict.report);
    }
    Ok(verdict)
}

/// Why the guest ended so; nothing when it just said that it was done.
fn explain(vm: &Vm, report: &RunReport) -> Option<Diagnosis> {
    let has_chosen = matches!(report.stop, StopReason::Exited { code } if code != exit_code::PANICKED);
    (!has_chosen).then(|| vm.diagnose(report))
}

/// A console that is seen and kept.
struct Both {
    captured: Captured,
    shown: Box<dyn Write + Send>,
}

impl Write for Both {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.captured.write_all(bytes)?;
        self.shown.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.shown.flush()
    }
}

impl fmt::Debug for Both {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Both")
    }
}
