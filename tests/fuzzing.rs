//! The fuzzer's corpus, each file of it once; and whether the fuzzer finds what is there to be found.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use fuzz::corpus::{self, MAX_FILE_SIZE};
use fuzz::engine::run_once;
use fuzz::targets::{self, TARGETS};
use xtask::workspace;

use crate::harness::Seen;

fn corpora() -> PathBuf {
    workspace::root().join("tests/corpus")
}

#[test]
fn no_file_of_the_corpus_makes_its_target_panic() {
    for target in TARGETS.iter().filter(|target| !target.is_hidden) {
        let files = corpus::read(&corpora().join(target.name)).expect("readable");
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        let inputs = files.into_iter().map(|(path, input)| (path.display().to_string(), input));
        let seeds = (target.seeds)().into_iter().map(|input| ("a seed".to_owned(), input));
        for (name, input) in inputs.chain(seeds) {
            assert!(input.len() <= MAX_FILE_SIZE, "{name} has {} bytes", input.len());
            run_once(target, &input).unwrap_or_else(|failure| panic!("{name}: {}", failure.message));
        }
    }
}

#[test]
fn every_folder_of_the_corpus_has_its_target() {
    let entries = fs::read_dir(corpora()).expect("the corpus is there");
    let folders = entries.map(|entry| entry.expect("readable").path()).filter(|path| path.is_dir());
    let folders: BTreeSet<_> = folders.map(|path| path.file_name().map(ToOwned::to_owned)).collect();
    for folder in folders.into_iter().flatten() {
        let name = folder.to_str().expect("UTF-8");
        assert!(targets::find(name).is_some_and(|target| !target.is_hidden), "{name}");
    }
}

/// The fuzzer, without counters of edges: what it finds here, it finds by the marks of its target.
fn fuzzer() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = workspace::cargo();
        workspace::check(cargo.args(["build", "--quiet", "--package", "fuzz"])).expect("it builds");
        workspace::target_directory().join("debug/fuzz")
    })
}

fn fuzz(results: &Path, words: &[&str]) -> Seen {
    let mut fuzz = Command::new(fuzzer());
    Seen::of(fuzz.args(words).arg("--corpus").arg(corpora()).arg("--results").arg(results))
}

#[test]
fn a_planted_bug_is_found_made_small_saved_and_repeated() {
    let results = tempfile::tempdir().expect("a folder");
    let seen = fuzz(results.path(), &["self-test", "--time", "60s", "--seed", "1"]);
    assert_eq!(seen.code, Some(1), "{seen:?}");
    assert!(seen.stdout.contains("the planted bug"), "{seen:?}");

    let folder = results.path().join("found/self-test");
    let mut found = corpus::read(&folder).expect("it was saved");
    found.sort_by_key(|(path, _)| path.extension().is_some());
    let [(file, input), (_, text)] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(input, targets::self_test::TRIGGER);
    let text = String::from_utf8_lossy(text);
    let again = format!("cargo xtask fuzz self-test --run {}", file.display());
    assert!(text.contains("seed 1\n") && text.contains(&again), "{text}");

    let file = file.to_str().expect("UTF-8");
    let again = fuzz(results.path(), &["self-test", "--run", file]);
    assert!(again.code == Some(101) && again.stderr.contains("the planted bug"), "{again:?}");
    fs::write(file, b"Duet?").expect("writable");
    let harmless = fuzz(results.path(), &["self-test", "--run", file]);
    assert_eq!((harmless.code, harmless.stdout.as_str()), (Some(0), "nothing happened\n"));
}

#[test]
fn a_bug_that_takes_the_process_down_is_found_too() {
    for (target, what) in [("self-test-abort", "it aborts"), ("self-test-hang", "it does not end")] {
        let results = tempfile::tempdir().expect("a folder");
        let seen = fuzz(results.path(), &[target, "--time", "60s", "--seed", "1", "--hang", "500ms"]);
        assert_eq!(seen.code, Some(1), "{target}: {seen:?}");
        assert!(seen.stdout.contains(what), "{target}: {seen:?}");
        let files = corpus::read(&results.path().join("found").join(target)).expect("it was saved");
        assert!(files.iter().any(|(_, input)| input == targets::self_test::TRIGGER), "{target}: {files:?}");
    }
}

#[test]
fn a_hunt_that_finds_nothing_succeeds_and_says_what_it_did() {
    let results = tempfile::tempdir().expect("a folder");
    let seen = fuzz(results.path(), &["page-walk", "--time", "300ms", "--seed", "7"]);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.stdout.contains("seed 7") && seen.stdout.contains(" runs, "), "{seen:?}");
    let seen = fuzz(results.path(), &["nonesuch"]);
    assert!(seen.code == Some(100) && seen.stderr.contains("there are: elf, contract"), "{seen:?}");
}
