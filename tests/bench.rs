//! `cargo xtask bench` as a user types it: what it measures, keeps, draws and refuses.

use std::fs;
use std::path::Path;

use serde_json::Value;
use xtask::workspace;

use crate::harness::Seen;

fn bench(words: &[&str]) -> Seen {
    Seen::of(workspace::cargo().args(["--quiet", "xtask", "bench"]).args(words))
}

/// A few rounds of programs that are built soon.
fn bench_start(words: &[&str]) -> Seen {
    bench(&[&["start", "--unoptimised", "--rounds", "3"], words].concat())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn a_start_is_measured_kept_drawn_and_compared() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, plots) = (folder.path().join("old.json"), folder.path().join("plots"));

    let rival = "sh -c 'echo $0; exit 3' {}";
    let seen = bench_start(&["--vs", rival, "--json", text(&old), "--plot", text(&plots)]);

    assert_eq!(seen.code, Some(0), "{seen:?}");
    for name in ["exec to first guest byte", "exec to end", "peak memory", "system calls", "page faults"] {
        assert!(seen.stdout.contains(name), "{name}: {seen:?}");
    }
    assert!(
        seen.stdout.contains("exec to end, sh") && seen.stdout.contains("sh (exit status: 3)"),
        "{seen:?}"
    );
    let kept: Value = serde_json::from_str(&fs::read_to_string(&old).expect("it was written")).expect("JSON");
    let all = kept["measurements"].as_array().expect("a list");
    assert!(all.iter().all(|one| one["group"] == "start"), "{kept}");
    assert_eq!(all[0]["samples"].as_array().map(Vec::len), Some(3), "{kept}");
    assert_eq!(all[0]["limit"]["samples"].as_array().map(Vec::len), Some(3), "{kept}");
    assert!(plots.join("index.html").exists() && plots.join("start.svg").exists());

    // Now the JSON goes to stdout, and the table with what has changed to stderr.
    let seen = bench_start(&["--compare", text(&old), "--check", "--json", "-"]);

    let is_bad = seen.stderr.contains(" missed") || seen.stderr.contains(", worse");
    assert_eq!(seen.code, Some(i32::from(is_bad)), "{seen:?}");
    assert!(serde_json::from_str::<Value>(&seen.stdout).is_ok(), "{seen:?}");
    assert!(seen.stderr.contains("then: ratio") && seen.stderr.contains("only then: start, exec to end, sh"));
}

#[test]
fn a_rival_that_prints_nothing_is_refused_with_what_it_says() {
    let seen = bench_start(&["--vs", "sh -c 'echo no accelerator >&2; exit 1'"]);
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(seen.stderr.contains("prints nothing") && seen.stderr.contains("no accelerator"), "{seen:?}");
}

#[test]
fn what_is_wrong_is_said_before_anything_is_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    let foreign = folder.path().join("foreign.json");
    fs::write(&foreign, "{\"version\":99}").expect("writable");
    for (words, code, reason) in [
        (&["--compare", text(&foreign)][..], 100, "it has version 99"),
        (&["--compare", "/nonesuch.json"], 100, "cannot read /nonesuch.json"),
        (&["snapshots", "--vs", "echo"], 100, "takes its turns in `start`"),
        (&["--vs", "echo 'open"], 2, "missing closing quote"),
        (&["nonesuch"], 2, "possible values: start"),
    ] {
        let seen = bench(words);
        assert_eq!(seen.code, Some(code), "{seen:?}");
        assert!(seen.stderr.contains(reason), "{reason}: {seen:?}");
    }
    let listed = bench(&["--list"]);
    assert!(listed.code == Some(0) && listed.stdout.starts_with("start "), "{listed:?}");
}
