//! `cargo xtask test`: everything that can fail.
//!
//! The suites run one after the other and print what libtest prints; the last line adds them up. A test that needs what
//! a KVM lacks says so in a line of its own ([`Lack`]) and counts as skipped there; a test that ran on no KVM is a failure,
//! as soon as there was more than one to try.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use crate::workspace::{self, Profile, cargo};
use crate::{guest, qemu, target};

/// Runs all tests, or those whose name contains `filter`, on the KVM that `options` name.
///
/// # Errors
/// When something cannot be built or started. Failing tests are the exit code.
pub fn run(filter: Option<&str>, options: &qemu::Options) -> Result<ExitCode> {
    let mut total = Totals::default();
    if options.kvm.host() {
        total.add(&run_here(filter)?);
    }
    let lacking_here = total.lacking.clone();
    if options.kvm.qemu() {
        let there = qemu::test::run(filter, &options.linux)?;
        total.fail_what_ran_nowhere(&lacking_here, &there.lacking);
        total.add(&there);
    }
    Ok(total.conclude())
}

/// Runs the tests inside guests, or those whose name contains `filter`, with these options of `vmm test`.
///
/// # Errors
/// As [`run`].
pub fn run_in_guests(filter: Option<&str>, options: &[OsString]) -> Result<ExitCode> {
    target::ensure(target::GUEST)?;
    let mut suite = in_guests();
    suite.arg("--").args(filter).args(options);
    Ok(run_suite(&mut suite)?.conclude())
}

fn run_here(filter: Option<&str>) -> Result<Totals> {
    // Guests and the VMM first: so what does not compile is said before any test runs.
    guest::build_all(Profile::Debug)?;
    workspace::build_vmm(Profile::Debug)?;

    let mut total = Totals::default();
    for mut suite in suites() {
        suite.args(filter);
        total.add(&run_suite(&mut suite)?);
    }
    Ok(total)
}

/// In guests, the guest's programs are tests, too; cargo's runner for the target gives each test its own machine.
const IN_GUESTS: [&str; 6] = ["test", "--package", "guest-kernel", "--target", target::GUEST, "--tests"];

/// The tests inside guests.
pub(crate) fn in_guests() -> Command {
    suite(&IN_GUESTS)
}

/// Unit tests of the host: of libraries and programs. The guest's programs are no tests of the host, and the floor has no
/// `main` of Rust's, so nothing that runs tests.
pub(crate) const UNITS: [&str; 9] = [
    "--workspace",
    "--exclude",
    "guest-kernel",
    "--exclude",
    "floor",
    "--exclude",
    "tests",
    "--lib",
    "--bins",
];

fn suites() -> Vec<Command> {
    let units = [&["test"][..], &UNITS].concat();
    [
        &units[..],
        &["test", "--package", "guest-kernel", "--lib"],
        &["test", "--workspace", "--doc"],
        &IN_GUESTS,
        &["test", "--package", "tests"],
    ]
    .map(suite)
    .into()
}

fn suite(arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.args(arguments).arg("--no-fail-fast");
    command
}

/// A test that a KVM could not run: `not on kvm_pvm: watchpoints: gdb::a_watchpoint_fires`. `tests/harness/needs.rs` writes
/// such lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    kvm: String,
    feature: String,
    test: String,
}

impl Lack {
    fn from_line(line: &str) -> Option<Self> {
        let mut parts = line.strip_prefix("not on ")?.splitn(3, ": ").map(str::to_owned);
        Some(Self { kvm: parts.next()?, feature: parts.next()?, test: parts.next()? })
    }
}

/// What libtest counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tests that have held.
    pub passed: u64,
    /// Tests that have not, and suites that ended without a result.
    pub failed: u64,
    /// Tests that were not run.
    pub skipped: u64,
    /// Tests among the skipped that need what the KVM lacks.
    pub lacking: Vec<Lack>,
}

impl Totals {
    /// Says what was counted; the exit code says whether all is well.
    fn conclude(&self) -> ExitCode {
        if !self.lacking.is_empty() {
            println!();
        }
        for Lack { kvm, feature, test } in &self.lacking {
            println!("not on {kvm}: {feature}: {test}");
        }
        println!("\n{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.lacking.extend_from_slice(&other.lacking);
    }

    /// Adds what a line of a suite's output counts. A test that lacks something returns, and so libtest says that it passed.
    pub(crate) fn read(&mut self, line: &str) {
        self.lacking.extend(Lack::from_line(line));
        if let Some(counts) = Self::from_line(line) {
            self.add(&counts);
        }
    }

    /// Moves the tests that lack something, all read by now, from the passed to the skipped.
    pub(crate) fn settle(&mut self) {
        let lacking = self.lacking.len() as u64;
        self.passed = self.passed.saturating_sub(lacking);
        self.skipped += lacking;
    }

    /// Counts as failed what lacked something on both KVMs: it has shown nothing.
    fn fail_what_ran_nowhere(&mut self, here: &[Lack], there: &[Lack]) {
        for lack in here.iter().filter(|lack| there.iter().any(|other| other.test == lack.test)) {
            eprintln!("xtask: the test {} ran on neither KVM: both lack what it needs", lack.test);
            self.failed += 1;
        }
    }

    /// Counts a suite that does not compile, or that died: it has no line of results.
    pub(crate) fn judge(&mut self, success: bool, suite: &str, end: &str) {
        if !success && self.failed == 0 {
            eprintln!("xtask: `{suite}` failed: {end}");
            self.failed = 1;
        }
    }

    /// The counts of a line such as `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
    fn from_line(line: &str) -> Option<Self> {
        let counts = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let count = |name: &str| {
            counts.split("; ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok()).unwrap_or(0)
        };
        Some(Self {
            passed: count("passed"),
            failed: count("failed"),
            skipped: count("ignored"),
            lacking: Vec::new(),
        })
    }
}

/// Runs one suite, shows its output and adds up its results.
pub(crate) fn run_suite(suite: &mut Command) -> Result<Totals> {
    run_suite_shown_on(&mut std::io::stdout(), suite)
}

/// Runs one suite, shows its output on `shown` and adds up its results.
pub(crate) fn run_suite_shown_on(shown: &mut dyn Write, suite: &mut Command) -> Result<Totals> {
    let words = workspace::words(suite);
    eprintln!("xtask: {words}");
    let mut child =
        suite.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{words}`"))?;
    let output = child.stdout.take().expect("stdout is piped");
    let mut totals = Totals::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.with_context(|| format!("cannot read the output of `{words}`"))?;
        let line = String::from_utf8_lossy(&line);
        writeln!(shown, "{line}").context("cannot show the output of the tests")?;
        totals.read(&line);
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{words}`"))?;
    totals.settle();
    totals.judge(status.success(), &words, &status.to_string());
    Ok(totals)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_libtests_line() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 7 filtered out; finished in 0.1s";
        let totals = Totals { passed: 12, failed: 3, skipped: 1, lacking: Vec::new() };
        assert_eq!(Totals::from_line(line), Some(totals));
        assert_eq!(Totals::from_line("test result"), None);
        assert_eq!(Totals::from_line("running 3 tests"), None);
    }

    #[test]
    fn a_test_that_lacks_something_is_skipped_and_one_that_ran_nowhere_has_failed() {
        let mut here = Totals::default();
        here.read("not on kvm_pvm: watchpoints: gdb::a_watchpoint_fires");
        here.read("test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured");
        here.settle();
        assert_eq!((here.passed, here.skipped, here.failed), (4, 1, 0));
        assert_eq!(here.lacking[0].feature, "watchpoints");

        let mut there = Totals::default();
        there.read("not on kvm_amd: SMM: modes::smm");
        here.fail_what_ran_nowhere(&here.lacking.clone(), &there.lacking);
        assert_eq!(here.failed, 0, "each ran on the other");
        there.read("not on kvm_amd: watchpoints: gdb::a_watchpoint_fires");
        here.fail_what_ran_nowhere(&here.lacking.clone(), &there.lacking);
        assert_eq!(here.failed, 1);
    }
}
