//! Where nobody listens: stdout and stderr that are full or closed, and files that would be overwritten.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::harness::{Seen, guest, vmm_binary};

/// A device that takes nothing: each write fails with ENOSPC.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("Linux has it").into()
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn run(words: &[&str]) -> Command {
    let mut vmm = Command::new(vmm_binary());
    vmm.arg("run").args(words);
    vmm
}

fn probe() -> String {
    guest("probe").to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_death_that_nobody_reads_of_has_its_exit_code_and_its_core_file() {
    for stderr in [full, closed] {
        let folder = TempDir::new().expect("a folder");
        let core = folder.path().join("core");
        let core_path = core.to_str().expect("UTF-8");
        let status = run(&["--core", core_path, &probe(), "--", "read-null"])
            .stderr(stderr())
            .status()
            .expect("it runs");
        assert_eq!(status.code(), Some(102));
        assert!(fs::metadata(&core).expect("the core file is there").len() > 4096);
    }
}

#[test]
fn what_only_prints_says_whether_it_could() {
    for words in [&["contract"][..], &["doctor"], &["doctor", "--features"], &["completions", "bash"]] {
        let vmm = |stdout: Stdio| Seen::of(Command::new(vmm_binary()).args(words).stdout(stdout));
        assert_eq!(vmm(closed()).code, Some(0), "{words:?}: a reader that has gone is no failure");
        let seen = vmm(full());
        assert_eq!(seen.code, Some(100), "{words:?}: {seen:?}");
        assert!(seen.stderr.starts_with("vmm: cannot write to stdout"), "{words:?}: {seen:?}");
    }
}

#[test]
fn a_diagnosis_as_json_is_this_runs_or_absent() {
    let folder = TempDir::new().expect("a folder");
    let json = folder.path().join("why.json");
    let path = json.to_str().expect("UTF-8");
    assert_eq!(
        run(&["--json-report", path, &probe(), "--", "read-null"]).status().expect("runs").code(),
        Some(102)
    );
    assert!(fs::read_to_string(&json).expect("written").contains("null dereference"));
    assert_eq!(
        run(&["--json-report", path, &probe(), "--", "return"]).status().expect("runs").code(),
        Some(0)
    );
    assert!(!json.exists(), "the guest did not die this time");

    let seen = Seen::of(&mut run(&["--json-report", "/nonexistent/why", &probe(), "--", "read-null"]));
    assert_eq!(seen.code, Some(100), "known before the guest runs: {seen:?}");
}

#[test]
fn no_output_replaces_the_kernel_or_another_output() {
    let folder = TempDir::new().expect("a folder");
    let kernel = folder.path().join("kernel.elf");
    fs::copy(guest("01_hello"), &kernel).expect("copied");
    let kernel_path = kernel.to_str().expect("UTF-8");
    for option in ["--report", "--trace-file", "--timeline", "--stats-json"] {
        let seen = Seen::of(&mut run(&[option, kernel_path, kernel_path]));
        assert_eq!(seen.code, Some(100), "{option}: {seen:?}");
        assert!(seen.stderr.contains("that is the kernel"), "{option}: {seen:?}");
        assert_eq!(
            fs::read(&kernel).expect("there"),
            fs::read(guest("01_hello")).expect("there"),
            "{option}"
        );
    }
    let twice = folder.path().join("out");
    let twice = twice.to_str().expect("UTF-8");
    let seen = Seen::of(&mut run(&["--timeline", twice, "--stats-json", twice, kernel_path]));
    assert_eq!(seen.code, Some(100), "{seen:?}");
}
