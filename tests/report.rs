//! `vmm run --report`: the file, and the data in it. How it looks and works in a browser is in `report_page.rs`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Seen, guest, vmm, vmm_run};

/// The data that a page has for programs.
pub(crate) fn data(html: &str) -> Value {
    let start = html.find(r#"<script type="application/json" id="data">"#).expect("the page has data");
    let json = html[start..].split_once('>').expect("the tag ends").1;
    serde_json::from_str(json.split_once("</script>").expect("the element ends").0).expect("JSON")
}

/// Runs a guest program with `--report`, and options and arguments.
pub(crate) fn report(page: &Path, program: &str, words: &[&str]) -> (Seen, String) {
    let report = ["--timeout", "60s", "--report", page.to_str().expect("UTF-8")];
    let seen = vmm_run(program, &[&report, words].concat());
    let html = fs::read_to_string(page).unwrap_or_else(|error| panic!("{error}: {seen:?}"));
    (seen, html)
}

/// `value` without host addresses, which change from run to run.
fn without_hva(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let own = fields.iter().filter(|(name, _)| !name.contains("hva"));
            own.map(|(name, value)| (name.clone(), without_hva(value))).collect()
        }
        Value::Array(values) => values.iter().map(without_hva).collect(),
        value => value.clone(),
    }
}

#[test]
fn its_stats_are_those_of_stats_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let stats = folder.path().join("stats.json");
    let words = ["--stats-json", stats.to_str().expect("UTF-8"), "--", "println-raw"];
    let (seen, html) = report(&folder.path().join("run.html"), "probe", &words);

    assert_eq!(seen.code, Some(0), "{seen:?}");
    let stats: Value = serde_json::from_slice(&fs::read(stats).expect("stats")).expect("JSON");
    let page = data(&html);
    // Two observers read their clocks one behind the other; everything but times is equal.
    for field in ["counts", "version"] {
        assert_eq!(page["stats"][field], stats[field], "{field}");
    }
    assert_eq!(page["stats"]["total"]["exits"], stats["total"]["exits"]);
    assert_eq!(page["stats"]["total"]["exits"], page["timeline"]["total"]);
    let without_times = |value: &Value| {
        let mut lines = value["lines"].as_array().expect("lines").clone();
        for line in &mut lines {
            line["guest_ns"].take();
            line["host_ns"].take();
        }
        lines
    };
    assert_eq!(without_times(&page["stats"]), without_times(&stats));
}

#[test]
fn its_answers_and_map_are_those_of_explain_and_map() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_, html) = report(&folder.path().join("run.html"), "01_hello", &[]);
    let image = guest("01_hello");
    let image = image.to_str().expect("UTF-8");
    let json = |words: &[&str]| -> Value {
        serde_json::from_str(&vmm(&[words, &[image]].concat()).stdout).expect("JSON")
    };

    let mut explained = json(&["explain", "--json"]);
    explained.as_object_mut().expect("an object").remove("peeks");
    assert_eq!(without_hva(&data(&html)["explain"]), without_hva(&explained));
    let map = json(&["map", "--at-stop", "--json"]);
    assert_eq!(without_hva(&data(&html)["map"]), without_hva(&map));
}

#[test]
fn a_long_run_makes_a_page_of_bounded_size_that_says_what_it_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let (seen, html) = report(&folder.path().join("run.html"), "lab_console", &["--", "3"]);
    assert_eq!(seen.code, Some(0), "{}", seen.stderr);

    let data = data(&html);
    let (total, left_out) =
        (&data["timeline"]["total"], data["timeline"]["left_out"].as_u64().expect("a count"));
    assert!(left_out > 0, "{total}");
    let kept = data["timeline"]["exits"].as_array().expect("exits").len() as u64;
    assert_eq!((kept, Some(kept + left_out)), (8000, total.as_u64()));
    assert!(html.contains("are left out"));
    assert!(html.len() < 2 << 20, "{} bytes", html.len());
}

#[test]
fn many_page_tables_make_a_page_of_bounded_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let words = ["--memory", "8G", "--page-size", "4k"];
    let (seen, html) = report(&folder.path().join("run.html"), "01_hello", &words);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(data(&html)["explain"]["tables"]["tables"].as_u64().expect("a count") > 4000);
    assert!(html.len() < 4 << 20, "{} bytes", html.len());
}

#[test]
fn a_run_that_ends_badly_has_a_page_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let (seen, html) = report(&folder.path().join("run.html"), "probe", &["--", "unclaimed-port-out"]);
    assert_eq!(seen.code, Some(102), "{seen:?}");
    assert!(html.contains("where no device is") && html.contains("verdict bad"));
}

#[test]
fn a_page_that_cannot_be_written_is_named_before_the_guest_runs() {
    let seen = vmm_run("01_hello", &["--report", "/nonexistent/run.html"]);
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(100), ""), "{seen:?}");
    assert!(seen.stderr.contains("cannot write the report to /nonexistent/run.html"), "{seen:?}");
}
