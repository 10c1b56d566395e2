//! What it means that the `vmm` program refuses: an exit code, one clear line, and nothing on stdout.

use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Seen, vmm_binary};

/// Runs `vmm run` for images that need no contract; a hang ends after twenty seconds, without an exit code.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: &[S]) -> Seen {
    let mut command = Command::new(vmm_binary());
    command.args(["run", "--no-contract"]).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the VMM starts");
    let end = Instant::now() + Duration::from_secs(20);
    while child.try_wait().expect("it is our child").is_none() {
        if Instant::now() > end {
            child.kill().expect("it is our child");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Seen::from(child.wait_with_output().expect("it is our child"))
}

/// Expects `vmm run` to refuse an image with these bytes, in a line that has all `words`.
#[track_caller]
pub(crate) fn of_image(name: &str, bytes: &[u8], words: &[&str]) {
    of_image_in(name, "16M", bytes, words);
}

/// As [`of_image`], for a machine with `memory`.
#[track_caller]
pub(crate) fn of_image_in(name: &str, memory: &str, bytes: &[u8], words: &[&str]) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let image = directory.path().join("image.elf");
    fs::write(&image, bytes).expect("a writable directory");
    let seen = run(&[OsStr::new("--memory"), OsStr::new(memory), image.as_os_str()]);
    of(name, &seen, words);
}

/// Expects exit code 100 and one line that starts with the program's name and has all `words`.
#[track_caller]
pub(crate) fn of(name: &str, seen: &Seen, words: &[&str]) {
    has(name, seen, 100, words);
    let one_line = seen.stderr.starts_with("vmm: ") && seen.stderr.find('\n') == Some(seen.stderr.len() - 1);
    assert!(one_line, "{name}: {seen:?}");
}

/// Expects exit code 2 and an explanation, in clap's form, that has all `words`.
#[track_caller]
pub(crate) fn of_arguments(arguments: &[&str], words: &[&str]) {
    let seen = run(arguments);
    has(&format!("{arguments:?}"), &seen, 2, words);
    assert!(seen.stderr.starts_with("error: "), "{arguments:?}: {seen:?}");
}

#[track_caller]
fn has(name: &str, seen: &Seen, code: i32, words: &[&str]) {
    assert_eq!(seen.code, Some(code), "{name}: {seen:?}");
    assert_eq!(seen.stdout, "", "{name}");
    for word in words {
        assert!(seen.stderr.contains(word), "{name}: `{word}` is missing in: {}", seen.stderr);
    }
}
