//! `cargo xtask` as a user types it.

use std::fs;
use std::process::Command;

use vmm::debug::{Detail, Symbols};
use xtask::guest::{self, DebugInfo};
use xtask::modes::table::MODES;
use xtask::workspace::{self, Profile};

use crate::harness::workspace_copy::WorkspaceCopy;
use crate::harness::{Seen, vmm_run};

/// Runs `cargo xtask` in `folder` of the workspace.
fn xtask_in(folder: &str, words: &[&str]) -> Seen {
    let mut cargo = workspace::cargo();
    Seen::of(cargo.current_dir(workspace::root().join(folder)).args(["--quiet", "xtask"]).args(words))
}

fn xtask(words: &[&str]) -> Seen {
    xtask_in(".", words)
}

#[test]
fn run_prints_the_greeting_from_any_folder() {
    for folder in [".", "guest-kernel/src/bin", "vmm"] {
        let seen = xtask_in(folder, &["run"]);
        assert_eq!(
            (seen.code, seen.stdout.as_str()),
            (Some(0), "hello from the guest\n"),
            "{folder}: {seen:?}"
        );
    }
}

#[test]
fn run_passes_options_arguments_and_the_exit_code_through() {
    let seen = xtask(&["run", "probe", "--memory", "4M", "--", "exit", "7"]);
    assert_eq!(seen.code, Some(7), "{seen:?}");
}

#[test]
fn without_debug_information_a_program_has_names_and_no_lines() {
    let full = guest::build("probe", Profile::Debug).expect("the probe builds");
    let built = fs::metadata(&full).and_then(|file| file.modified()).expect("it is a file");
    for profile in [Profile::Debug, Profile::Release] {
        let image = guest::build_with("probe", profile, DebugInfo::None).expect("the probe builds");
        let symbols = Symbols::read(&fs::read(&image).expect("it is there"));
        assert!(
            matches!(symbols.detail(), Detail::Names(why) if why.contains("no debug information")),
            "{symbols:?}"
        );
        assert!(symbols.address_of("_start").is_some());
    }
    let now = fs::metadata(&full).and_then(|file| file.modified()).expect("it is a file");
    assert_eq!(built, now, "the other build has a folder of its own");

    for image in ["probe", full.to_str().expect("a plain path")] {
        let seen = xtask(&["run", image, "--no-debug-info", "--", "null-write"]);
        assert_eq!(seen.code, Some(102), "{seen:?}");
        assert!(seen.stderr.contains("probe::gallery::memory::null_write"), "{seen:?}");
        assert!(
            !seen.stderr.contains("memory.rs") && seen.stderr.contains("no files and lines: "),
            "{seen:?}"
        );
    }
}

#[test]
fn list_shows_every_program_with_its_summary() {
    let seen = xtask(&["list"]);
    let hello = seen.stdout.lines().find_map(|line| line.strip_prefix("01_hello")).expect("hello is listed");
    assert_eq!(hello.trim(), "Prints one line: the smallest program.");
    let json: serde_json::Value = serde_json::from_str(&xtask(&["list", "--json"]).stdout).expect("JSON");
    let names: Vec<_> = json.as_array().expect("a list").iter().map(|program| &program["name"]).collect();
    assert!(names.contains(&&serde_json::json!("probe")), "{json}");
}

#[test]
fn a_new_program_runs_at_once_and_is_never_overwritten() {
    let copy = WorkspaceCopy::take();

    let seen = Seen::of(copy.xtask().args(["new", "fresh"]));
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.stdout.contains("cargo xtask run fresh"), "{seen:?}");
    let seen = Seen::of(copy.xtask().args(["run", "fresh"]));
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "hello from fresh\n"), "{}", seen.stderr);

    let source = copy.path("guest-kernel/src/bin/fresh.rs");
    fs::write(&source, "// mine").expect("writable");
    let seen = Seen::of(copy.xtask().args(["new", "fresh"]));
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(seen.stderr.contains("there is a program"), "{seen:?}");
    assert_eq!(fs::read_to_string(&source).expect("readable"), "// mine");
}

#[test]
fn an_unknown_program_is_answered_with_those_there_are() {
    let seen = xtask(&["run", "nonesuch"]);
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(seen.stderr.contains("`nonesuch`") && seen.stderr.contains("01_hello"), "{seen:?}");
}

#[test]
fn a_guest_is_run_by_plain_cargo_too() {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--quiet", "--package", "guest-kernel", "--target", "x86_64-unknown-none"]);
    let seen = Seen::of(cargo.args(["--bin", "01_hello"]));
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "hello from the guest\n"), "{seen:?}");
}

#[test]
fn doctor_says_that_guests_can_run_here() {
    let seen = xtask(&["doctor"]);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    let json: serde_json::Value = serde_json::from_str(&xtask(&["doctor", "--json"]).stdout).expect("JSON");
    assert_eq!(json["can_run_guests"], true, "{json}");
}

#[test]
fn completions_are_scripts_of_the_shell() {
    let seen = Seen::of(Command::new(crate::harness::vmm_binary()).args(["completions", "bash"]));
    assert!(seen.stdout.contains("complete -F _vmm"), "{seen:?}");
}

#[test]
fn the_ksm_laboratory_counts_the_guests_pages_and_says_when_ksm_is_off() {
    let run = std::fs::read_to_string("/sys/kernel/mm/ksm/run").unwrap_or_default();

    let seen = xtask(&["lab", "ksm", "--vms", "2", "--equal", "2", "--own", "1", "--seconds", "1", "--json"]);

    assert_eq!(seen.code, Some(0), "{seen:?}");
    let json: serde_json::Value = serde_json::from_str(&seen.stdout).expect("JSON");
    let (state, samples) = (&json["ksm"], json["samples"].as_array().expect("samples"));
    let present = samples[0]["guests"]["present"].as_u64().expect("a count");
    assert!((2 * 3 * 256..2 * 6144).contains(&present), "2 machines with 3 MiB of content each: {json}");
    if run.trim() == "1" {
        assert_eq!(state, "on");
    } else {
        assert_ne!(state, "on");
        assert!(seen.stderr.contains("KSM") && seen.stderr.contains("no pages are merged"), "{seen:?}");
        assert_eq!((samples.len(), &samples[0]["guests"]["merged"]), (1, &serde_json::json!(0)), "{json}");
    }
    let after = std::fs::read_to_string("/sys/kernel/mm/ksm/run").unwrap_or_default();
    assert_eq!(after, run, "nothing is switched without --enable-ksm");
}

#[test]
fn diff_exits_shows_the_lines_that_changed_and_the_total() {
    let directory = tempfile::tempdir().expect("a directory");
    let stats_of = |name: &str, deed: &[&str]| {
        let path = directory.path().join(name);
        let path = path.to_str().expect("UTF-8").to_owned();
        let words = ["--timeout", "20s", "--stats-json", &path, "--"];
        let seen = vmm_run("probe", &[&words[..], deed].concat());
        assert_eq!(seen.code, Some(0), "{seen:?}");
        path
    };
    let by_byte = stats_of("before.json", &["println-raw"]);
    let by_line = stats_of("after.json", &["println", "5"]);

    let seen = xtask(&["diff-exits", &by_byte, &by_line, "--json"]);
    let difference: serde_json::Value = serde_json::from_str(&seen.stdout).expect("JSON");
    assert_eq!((&difference["before"], &difference["after"]), (&14.into(), &2.into()), "{seen:?}");
    let raw = &difference["lines"][0];
    assert_eq!(
        (&raw["before"], &raw["after"], &raw["before_what"]),
        (&13.into(), &0.into(), &"13 console".into())
    );
    assert!(raw["line"].as_str().is_some_and(|line| line.starts_with("calls.rs:")), "{raw}");

    let seen = xtask(&["diff-exits", &by_byte, &by_byte]);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.stdout.contains("every line made the same exits"), "{seen:?}");
}

#[test]
fn diff_exits_runs_programs_itself() {
    let seen = xtask(&["diff-exits", "01_hello", "probe"]);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    let hello = seen.stdout.lines().find(|line| line.contains("21 console -> nothing"));
    assert!(hello.is_some_and(|line| line.contains("21 -> 0")), "{seen:?}");
    assert!(seen.stdout.lines().last().is_some_and(|line| line.starts_with("total")), "{seen:?}");
}

#[test]
fn the_tour_of_modes_tells_programs_of_every_mode() {
    let seen = xtask(&["modes", "--json"]);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    let tours: serde_json::Value = serde_json::from_str(&seen.stdout).expect("JSON");
    let rows = tours[0]["rows"].as_array().expect("a row for each mode");
    let names: Vec<_> = rows.iter().filter_map(|row| row["mode"].as_str()).collect();
    assert_eq!(names, MODES.iter().map(|mode| mode.name).collect::<Vec<_>>());
    for (row, mode) in rows.iter().zip(MODES) {
        let name = mode.name;
        assert_eq!(
            (row["since"].as_str(), row["address_bits"].as_str()),
            (Some(mode.since), Some(mode.address_bits))
        );
        match row["verdict"].as_str() {
            Some("works") => assert!(row["how"].is_null(), "{name}: {row}"),
            Some("missing") => {
                assert!(row["how"].as_str().is_some_and(|how| !how.is_empty()), "{name}: {row}")
            }
            other => panic!("{name}: {other:?}: {row}"),
        }
        let was_seen_here = mode.seen_on.iter().any(|&kvm| tours[0]["kvm"] == kvm);
        assert!(!was_seen_here || row["verdict"] == "works", "{name} was seen working here: {row}");
    }
}
