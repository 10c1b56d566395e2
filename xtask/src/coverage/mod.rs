//! `cargo xtask coverage`: which lines the tests reach, on both sides.
//!
//! The host's code is instrumented by the compiler and counted by LLVM's tools (`host`). The guest's is watched from outside,
//! as it is (`guest`, `vmm/src/coverage/`). Both give files in lcov's format ([`lcov`]), which are added up to one, and
//! shown as a table and as a page.

mod guest;
mod host;
pub mod lcov;
mod page;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use crate::workspace;
use lcov::Lines;

/// What to measure and how to show it.
#[derive(Args, Debug)]
pub struct Options {
    /// Only tests inside guests.
    #[arg(long, conflicts_with = "host")]
    guest: bool,
    /// Only tests on the host.
    #[arg(long)]
    host: bool,
    /// Only tests whose name contains this.
    filter: Option<String>,
    /// Print the table as JSON.
    #[arg(long)]
    json: bool,
}

/// The folder of all results, below the target directory.
fn folder() -> PathBuf {
    workspace::target_directory().join("coverage")
}

/// Runs the tests and shows what they reach. How they go is on stderr; stdout is for the table.
///
/// # Errors
/// When something cannot be built, installed or written. Failing tests are the exit code; the results are of those that ran.
pub fn run(options: &Options) -> Result<ExitCode> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let filter = options.filter.as_deref();
    let (mut lines, mut failed) = (Lines::default(), 0);
    if !options.host {
        let (reached, failures) = guest::measure(filter)?;
        lines.add(&reached);
        failed += failures;
    }
    if !options.guest {
        let (reached, failures) = host::measure(filter)?;
        lines.add(&reached);
        failed += failures;
    }

    let (file, html) = (folder.join("duet.lcov"), folder.join("index.html"));
    fs::write(&file, lines.to_lcov()).with_context(|| format!("cannot write {}", file.display()))?;
    fs::write(&html, page::render(&lines)?).with_context(|| format!("cannot write {}", html.display()))?;
    if options.json {
        println!("{}", to_json(&lines, failed, &[&file, &html]));
    } else {
        print!("{}", table(&lines));
        println!("\n{}\n{}", file.display(), html.display());
    }
    if failed > 0 {
        eprintln!("xtask: {failed} failed, and may have reached less than they should");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// File, lines, covered, percent; and the sum.
fn table(lines: &Lines) -> String {
    let mut rows: Vec<_> = lines.files().map(|(file, counts)| (file.to_owned(), counts)).collect();
    rows.push(("all".to_owned(), lines.total()));
    let width = rows.iter().map(|(file, _)| file.len()).max().unwrap_or_default();
    let mut text = format!("{:width$}   lines  covered       %\n", "file");
    for (file, counts) in rows {
        let (lines, covered, percent) = (counts.lines, counts.covered, counts.percent());
        text += &format!("{file:width$}  {lines:6}  {covered:7}  {percent:6.1}\n");
    }
    text
}

fn to_json(lines: &Lines, failed: u64, results: &[&PathBuf]) -> String {
    let counts = |file: &str, counts: lcov::Counts| json!({"file": file, "lines": counts.lines, "covered": counts.covered, "percent": counts.percent()});
    let files: Vec<_> = lines.files().map(|(file, own)| counts(file, own)).collect();
    let document = json!({
        "files": files,
        "all": counts("all", lines.total()),
        "failed": failed,
        "results": results,
    });
    serde_json::to_string_pretty(&document).expect("strings, numbers and lists are always JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_row_for_every_file_and_their_sum() {
        let lines =
            Lines::read("SF:a.rs\nDA:1,1\nDA:2,0\nend_of_record\nSF:long/b.rs\nDA:1,1\nend_of_record\n");
        let table = table(&lines);
        let rows: Vec<_> = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(rows[0], ["file", "lines", "covered", "%"]);
        assert_eq!(rows[1], ["a.rs", "2", "1", "50.0"]);
        assert_eq!(rows[3], ["all", "3", "2", "66.7"]);
        let json: serde_json::Value = serde_json::from_str(&to_json(&lines, 0, &[])).expect("it is JSON");
        assert_eq!(json["all"]["covered"], 2);
        assert_eq!(json["files"][1]["file"], "long/b.rs");
    }
}
