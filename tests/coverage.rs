//! Coverage of guests: the lines that are told as reached are just those that are.
//!
//! What is reached stands in the comments of `guest-kernel/tests/covered.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use vmm::coverage::{Coverage, LineTable, LineTableError, Method};
use vmm::guest_tests::{self, Options, TestImage, Verdict};
use vmm::{Console, StopReason, Vm};
use xtask::guest;

use crate::harness::tree::read;
use crate::harness::{Seen, guest as program, patiently, probe, vmm_binary};

const SOURCE: &str = "guest-kernel/tests/covered.rs";

/// The image of these tests.
fn covered() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| guest::build_tests("covered").expect("the tests build"))
}

/// What the comments of the source promise of its lines.
fn promised() -> BTreeMap<u64, bool> {
    let source = read(SOURCE);
    let promise = |line: &str| match line.split_once("; // ").or(line.split_once(") // "))?.1 {
        "reached" => Some(true),
        "not reached" => Some(false),
        _ => None,
    };
    let lines = source.lines().zip(1..).filter_map(|(line, number)| Some((number, promise(line)?)));
    let lines: BTreeMap<_, _> = lines.collect();
    assert!(lines.values().any(|&reached| reached) && lines.values().any(|&reached| !reached));
    lines
}

/// What a file of results says of the source's lines.
fn told(lcov: &str) -> BTreeMap<u64, bool> {
    let records = lcov.split("end_of_record\n").filter(|record| record.contains(SOURCE));
    let lines = records.flat_map(str::lines).filter_map(|line| line.strip_prefix("DA:")?.split_once(','));
    lines.map(|(line, hits)| (line.parse().expect("a number"), hits != "0")).collect()
}

#[track_caller]
fn keeps_its_promises(lcov: &str) {
    let told = told(lcov);
    for (line, reached) in promised() {
        assert_eq!(told.get(&line), Some(&reached), "{SOURCE}:{line} in {lcov}");
    }
}

fn options() -> Options {
    Options { timeout: patiently(Duration::from_secs(20)), show: None }
}

fn run_all(image: &TestImage, run: impl Fn(&guest_tests::GuestTest) -> vmm::Result<Verdict>) -> Vec<Verdict> {
    let asked_for = image.tests().iter().filter(|test| !test.is_ignored);
    asked_for.map(|test| run(test).expect("the host can do its work")).collect()
}

#[test]
fn each_line_is_told_as_its_comment_says_and_no_test_notices() {
    let image = TestImage::open(covered()).expect("an image").expect("with tests");
    let plain = run_all(&image, |test| guest_tests::run(&image, test, &options()));
    let mut results = Vec::new();
    for method in Method::ALL {
        if !method.works().expect("/dev/kvm") {
            continue;
        }
        let table = image.lines().expect("it has debug information");
        let coverage = Coverage::new(table, Some(method)).expect("it works here");
        let watched = run_all(&image, |test| guest_tests::run_covered(&image, test, &options(), &coverage));

        for (plain, watched) in plain.iter().zip(&watched) {
            assert_eq!(plain.console, watched.console);
            assert_eq!(plain.has_held(), watched.has_held(), "{watched}");
            match &plain.report.stop {
                StopReason::TimedOut { .. } => {
                    assert!(matches!(watched.report.stop, StopReason::TimedOut { .. }), "{watched}");
                }
                stop => {
                    assert_eq!(stop, &watched.report.stop);
                    let own = |verdict: &Verdict| vmm::observe::ExitCounts {
                        interrupted: 0,
                        ..verdict.report.exits
                    };
                    assert_eq!(own(plain), own(watched), "the exits of coverage are not the guest's");
                }
            }
        }
        keeps_its_promises(&coverage.to_lcov());
        results.push(coverage.to_lcov());
    }
    assert!(!results.is_empty(), "no method works");
    assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "the methods do not agree: {results:#?}");
}

#[test]
fn the_command_writes_a_file_and_has_the_results_it_has_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("covered.lcov");
    let test =
        |options: &[&str]| Seen::of(Command::new(vmm_binary()).arg("test").arg(covered()).args(options));
    let path = folder.path().to_str().expect("UTF-8");

    let listed = test(&["--coverage", path, "--list"]);
    assert!(listed.code == Some(0) && !file.exists(), "a list reaches nothing: {listed:?}");

    let (plain, watched) = (test(&["--skip", "loop"]), test(&["--skip", "loop", "--coverage", path]));
    assert_eq!((plain.code, watched.code), (Some(0), Some(0)), "{watched:?}");
    assert!(watched.stdout.contains("test result: ok. 4 passed; 0 failed; 1 ignored"), "{watched:?}");
    assert!(watched.stderr.contains(" lines of "), "{watched:?}");
    let lcov = std::fs::read_to_string(&file).expect("it was written");
    assert!(lcov.contains("guest-kernel/src/boot.rs\n"), "{lcov}");
    assert!(!lcov.contains("/library/core/"), "the standard library is nobody's to test: {lcov}");
}

#[test]
fn a_run_leaves_memory_without_traps() {
    let path = program("probe");
    let config = || {
        let mut boot = probe("arguments one two");
        boot.config.console = Console::discard();
        boot.config
    };
    let text = |vm: &Vm| {
        let segment = vm.image().segments()[0];
        let mut bytes = vec![0; (segment.end.0 - segment.start.0) as usize];
        vm.memory().read(segment.start, &mut bytes).expect("it is RAM");
        bytes
    };
    let mut plain = Vm::build(config()).expect("/dev/kvm");
    plain.run().expect("it runs");

    let table = LineTable::read(&std::fs::read(path).expect("it was built")).expect("debug information");
    let coverage = Coverage::new(table, None).expect("a method works here");
    let mut watched = Vm::build(config()).expect("/dev/kvm");
    let report = coverage.run(&mut watched).expect("it runs");
    assert_eq!(report.stop, StopReason::Exited { code: 0 });
    assert!(text(&plain) == text(&watched), "traps are left");
    let summary = coverage.summary();
    assert!(0 < summary.covered && summary.covered < summary.lines, "{summary}");
}

#[test]
fn an_image_without_lines_is_told_in_a_sentence() {
    assert!(matches!(LineTable::read(b"no ELF file"), Err(LineTableError::NotElf(_))));
    let mut bytes = std::fs::read(program("probe")).expect("it was built");
    // Without section headers nobody finds the debug information.
    bytes[0x28..0x30].fill(0);
    bytes[0x3C..0x40].fill(0);
    assert!(matches!(LineTable::read(&bytes), Err(LineTableError::None)));
}
