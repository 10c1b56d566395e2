//! Lessons: each prints what its text promises, on every KVM, and has what a reader looks for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::markdown::{Typed, blocks, code_spans, module_docs, section, shows, typed};
use crate::harness::{Seen, guest, optimised_guest, vmm_binary};

include!(concat!(env!("OUT_DIR"), "/lessons.rs"));

const README: &str = include_str!("../README.md");

/// Far more than a lesson takes, also in QEMU.
const TIME_LIMIT: &str = "120s";

/// The most lines of code that a lesson may have, its text aside.
const MAX_LINES: usize = 80;

#[test]
fn every_lesson_prints_what_it_promises() {
    LESSONS.iter().for_each(|lesson| follow(lesson, guest));
}

#[test]
fn every_lesson_prints_the_same_when_it_is_optimised() {
    LESSONS.iter().for_each(|lesson| follow(lesson, optimised_guest));
}

/// Types what a lesson's console shows, in an empty directory.
fn follow((name, text): &(&str, &str), image: fn(&str) -> PathBuf) {
    let directory = tempfile::tempdir().expect("a directory for files of guests");
    let mut code = None;
    for Typed { command, output } in promised(name, text) {
        let seen = match command.split(' ').collect::<Vec<_>>()[..] {
            ["cargo", "xtask", "run", program, ref words @ ..] => {
                assert_eq!(program, *name, "a lesson runs itself");
                run(&image(name), words, directory.path())
            }
            ["mkdir", path] => {
                fs::create_dir(directory.path().join(path)).expect("a new name");
                continue;
            }
            ["cat", path] => {
                let text = fs::read_to_string(directory.path().join(path));
                assert_eq!(text.ok().as_deref(), Some(output.as_str()), "{name}: `{command}`");
                continue;
            }
            ["echo", "$?"] => {
                assert_eq!(Some(output.trim().to_owned()), code, "{name}: `{command}`");
                continue;
            }
            _ => panic!("{name}: nobody knows how to type `{command}` here"),
        };
        let printed = seen.stdout.clone() + &seen.stderr;
        let line = line_of(text, output.lines().next().unwrap_or_default());
        assert!(
            shows(&output, &printed),
            "guest-kernel/src/bin/{name}.rs:{line}: `{command}` should print\n{output}\nbut: {printed}\n({seen:?})"
        );
        code = seen.code.map(|code| code.to_string());
    }
}

/// The commands that a lesson shows; where it shows none, it is run.
fn promised(name: &str, text: &str) -> Vec<Typed> {
    let docs = module_docs(text);
    let block = blocks(section(&docs, "# What you will see")).remove(0);
    assert_eq!(block.language, "console", "{name}");
    match block.text.starts_with("$ ") {
        true => typed(&block.text),
        false => typed(&format!("$ cargo xtask run {name}\n{}", block.text)),
    }
}

/// Runs a lesson as `cargo xtask run` does, with options and words behind its name.
fn run(image: &Path, words: &[&str], directory: &Path) -> Seen {
    let mut vmm = Command::new(vmm_binary());
    vmm.current_dir(directory).arg("run").arg(image).args(["--timeout", TIME_LIMIT]).args(words);
    Seen::of(&mut vmm)
}

/// The line of a lesson that promises `output`.
fn line_of(text: &str, output: &str) -> usize {
    let promises = |line: &str| line.strip_prefix("//! ").is_some_and(|line| line == output);
    text.lines().position(promises).map_or(1, |line| line + 1)
}

#[test]
fn every_lesson_says_where_to_look_on_both_sides_and_what_to_try() {
    for (name, text) in LESSONS {
        let docs = module_docs(text);
        let places = section(&docs, "# Where to look");
        let is_guests = |place: &&str| place.starts_with("guest-kernel/src/");
        assert!(code_spans(places).iter().any(is_guests), "{name} names no file of the kernel");
        // There may be nothing to see, and then it says so.
        assert!(places.contains("Host: "), "{name} does not say what the host does");
        let exercises = section(&docs, "# Exercises");
        let count = exercises.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count();
        assert!((2..=4).contains(&count), "{name} has {count} exercises");
        let lines = text.lines().filter(|line| !line.starts_with("//!")).count();
        assert!(lines <= MAX_LINES, "{name} has {lines} lines of code");
    }
}

#[test]
fn lessons_are_numbered_without_a_gap_and_the_readme_has_all() {
    for (number, (name, _)) in (1..).zip(LESSONS) {
        assert!(name.starts_with(&format!("{number:02}_")), "{name} is lesson {number}");
        assert!(README.contains(&format!("| `cargo xtask run {name}")), "README.md does not list {name}");
    }
}
