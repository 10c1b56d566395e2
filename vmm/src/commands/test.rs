//! `vmm test`: the tests of an image, with libtest's options and output.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use vmm::coverage::Coverage;
use vmm::guest_tests::junit::{self, Case, Outcome};
use vmm::guest_tests::{self, GuestTest, Options, TestImage, TestListError};
use vmm::{Error, Result};

use crate::cli::Test;

/// Runs the tests that are asked for. That some fail is the exit code, which is libtest's.
///
/// # Errors
/// When the image cannot be read, or the file of results not be written.
pub(super) fn run(arguments: Test) -> Result<ExitCode> {
    let path = &arguments.image;
    let no_list = || Error::TestList { path: path.clone(), source: TestListError::None };
    let image = Arc::new(TestImage::open(path)?.ok_or_else(no_list)?);
    let shown = arguments.libtest.nocapture.then_some(stdout as fn() -> _);
    let options = Options { timeout: arguments.timeout, show: shown };
    let coverage = match &arguments.coverage {
        Some(_) if !arguments.libtest.list => Some(coverage(&image, &arguments)?),
        _ => None,
    };

    let outcomes = Arc::new(Outcomes { coverage, ..Outcomes::default() });
    let trials = image.tests().iter().map(|test| {
        let (image, test, outcomes) = (Arc::clone(&image), test.clone(), Arc::clone(&outcomes));
        let again = format!("again: vmm run {} -- {}", path.display(), test.name);
        let is_ignored = test.is_ignored;
        Trial::test(test.name.clone(), move || outcomes.run(&image, &test, &options, &again))
            .with_ignored_flag(is_ignored)
    });
    let conclusion = libtest_mimic::run(&arguments.libtest, trials.collect());
    if let Some(junit) = &arguments.junit {
        let cases = outcomes.cases(image.tests(), &arguments.libtest);
        junit::write(&results_file(junit, path, "xml"), &suite_name(path), &cases)?;
    }
    if let (Some(lcov), Some(coverage)) = (&arguments.coverage, &outcomes.coverage) {
        let file = results_file(lcov, path, "lcov");
        let written = std::fs::write(&file, coverage.to_lcov());
        written.map_err(|source| Error::TestResults { path: file.clone(), source })?;
        eprintln!("vmm: the tests reach {}: {}", coverage.summary(), file.display());
    }
    Ok(conclusion.exit_code())
}

/// What no test has reached yet.
fn coverage(image: &TestImage, arguments: &Test) -> Result<Coverage> {
    let no_lines = |source| Error::Lines { path: arguments.image.clone(), source };
    Coverage::new(image.lines().map_err(no_lines)?, arguments.coverage_by.map(Into::into))
}

/// The file of an image's results: `path` itself, or one of the image's name in this folder.
fn results_file(path: &Path, image: &Path, extension: &str) -> PathBuf {
    if path.is_dir() { path.join(format!("{}.{extension}", suite_name(image))) } else { path.to_owned() }
}

/// The name of an image, without what cargo puts behind it: `selftest` of `selftest-0123456789abcdef`.
fn suite_name(image: &Path) -> String {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    match name.rsplit_once('-') {
        Some((name, hash)) if is_hash(hash) => name.to_owned(),
        _ => name.into_owned(),
    }
}

fn stdout() -> Box<dyn Write + Send> {
    Box::new(io::stdout())
}

/// What became of the tests that have run, by name, and what they have reached.
#[derive(Default)]
struct Outcomes {
    by_name: Mutex<BTreeMap<String, Outcome>>,
    coverage: Option<Coverage>,
}

impl Outcomes {
    /// Runs a test and keeps what became of it.
    fn run(
        &self,
        image: &TestImage,
        test: &GuestTest,
        options: &Options,
        again: &str,
    ) -> std::result::Result<(), Failed> {
        let start = Instant::now();
        let verdict = match &self.coverage {
            Some(coverage) => guest_tests::run_covered(image, test, options, coverage),
            None => guest_tests::run(image, test, options),
        };
        let failure = match verdict {
            Ok(verdict) if verdict.has_held() => None,
            Ok(verdict) => Some(format!("{verdict}\n{again}")),
            Err(error) => Some(format!("{}:{}: {}", test.file, test.line, super::chain(&error))),
        };
        let outcome = outcome(start.elapsed(), failure.as_deref());
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).insert(test.name.clone(), outcome);
        failure.map_or(Ok(()), |text| Err(Failed::from(text)))
    }

    /// All tests that the filters leave; those that have not run were skipped.
    fn cases(&self, tests: &[GuestTest], arguments: &Arguments) -> Vec<Case> {
        let mut outcomes = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let is_left = |test: &&GuestTest| {
            let trial = Trial::test(test.name.clone(), || Ok(())).with_ignored_flag(test.is_ignored);
            !arguments.is_filtered_out(&trial)
        };
        let case = |test: &GuestTest| Case {
            name: test.name.clone(),
            file: test.file.clone(),
            line: test.line,
            outcome: outcomes.remove(&test.name).unwrap_or(Outcome::Skipped),
        };
        tests.iter().filter(is_left).map(case).collect()
    }
}

fn outcome(time: Duration, failure: Option<&str>) -> Outcome {
    let Some(text) = failure else {
        return Outcome::Passed(time);
    };
    let message = text.lines().next().unwrap_or_default();
    Outcome::Failed { time, message: message.to_owned(), text: text.to_owned() }
}
