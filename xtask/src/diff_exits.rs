//! `cargo xtask diff-exits`: the exits of two runs, line by line.
//!
//! Each side is a guest program, an ELF file, or what `vmm run --stats-json` has written. A line is one of the program:
//! what the library does for it is added up there, so `println_raw!` becoming `println!` is one row. Two programs are
//! compared by their functions and lines, whatever the programs' own names are. A line that has moved is two rows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::guest;
use crate::workspace::{self, Profile};

/// What is compared, and how.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// One run: a guest program, an ELF file, or a file that `vmm run --stats-json` has written.
    before: String,
    /// The other run.
    after: String,
    /// Build the guest programs optimised.
    #[arg(long)]
    release: bool,
    /// Print the comparison as JSON.
    #[arg(long)]
    json: bool,
    /// Stop a guest after this time.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    timeout: String,
    /// The arguments of both guests.
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// The version of `vmm run --stats-json` that this reads: `Summary::VERSION` in `vmm/src/observe/summary.rs`.
const VERSION: u64 = 1;

/// The version of what `--json` prints.
const OWN_VERSION: u32 = 1;

/// Compares; that the runs differ is no failure.
///
/// # Errors
/// When something cannot be built, run or read.
pub fn run(options: &Options) -> Result<ExitCode> {
    let before = Side::of(&options.before, options)?;
    let after = Side::of(&options.after, options)?;
    let difference = Difference::between(&before, &after);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&difference)?);
    } else {
        print!("{}", difference.table());
    }
    Ok(ExitCode::SUCCESS)
}

/// The exits of one run, by line and by what they are.
#[derive(Debug, Default)]
struct Side(BTreeMap<Place, Exits>);

/// The exits of one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Exits {
    /// The line as people know it: `main at 01_hello.rs:28`.
    shown: String,
    /// How many, by handler or kind.
    by_what: BTreeMap<String, u64>,
}

/// A line of a program, under a name that another program's has too.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    function: String,
    /// `file:line`, without the program's own file.
    line: String,
}

impl Side {
    fn of(word: &str, options: &Options) -> Result<Self> {
        let path = Path::new(word);
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read(path).with_context(|| format!("cannot read {word}"))?;
            return Self::read(&text).with_context(|| format!("{word} holds no stats"));
        }
        let image = if word.contains('/') || path.is_file() {
            PathBuf::from(word)
        } else {
            guest::build(word, if options.release { Profile::Release } else { Profile::Debug })?
        };
        let stats = tempfile::NamedTempFile::new().context("cannot make a file for the stats")?;
        let status = Command::new(workspace::build_vmm(Profile::Debug)?)
            .args(["run", "--timeout", &options.timeout, "--stats-json"])
            .arg(stats.path())
            .arg(&image)
            .arg("--")
            .args(&options.arguments)
            .stdout(Stdio::null())
            .status()
            .context("cannot start the VMM")?;
        let text = fs::read(stats.path()).context("cannot read the stats")?;
        if text.is_empty() {
            bail!("{word} did not run: {status}");
        }
        if !status.success() {
            eprintln!("xtask: {word} did not end well ({status}); its exits until then are compared");
        }
        Self::read(&text).with_context(|| format!("the stats of {word} cannot be read"))
    }

    /// Reads what `vmm run --stats-json` writes.
    fn read(text: &[u8]) -> Result<Self> {
        let stats: Value = serde_json::from_slice(text).context("no JSON")?;
        let version = stats["version"].as_u64();
        if version != Some(VERSION) {
            bail!("its version is {version:?}, not {VERSION}");
        }
        let mut own = Self::default();
        for row in stats["lines"].as_array().context("it has no `lines`")? {
            let place = Place::of(&row["caller"]);
            let what =
                [&row["handler"], &row["kind"]].into_iter().find_map(Value::as_str).unwrap_or_default();
            let exits = row["exits"].as_u64().context("a line has no `exits`")?;
            let shown = place.shown(&row["caller"]);
            let line = own.0.entry(place).or_insert_with(|| Exits { shown, ..Exits::default() });
            *line.by_what.entry(what.to_owned()).or_default() += exits;
        }
        Ok(own)
    }

    fn exits(&self, place: &Place) -> u64 {
        self.0.get(place).map_or(0, |exits| exits.by_what.values().sum())
    }

    /// What the exits of a line are, and how many of each: `21 console`.
    fn what(&self, place: &Place) -> String {
        let exits = self.0.get(place).into_iter().flat_map(|exits| &exits.by_what);
        exits.map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    }
}

impl Place {
    /// The place that a `caller` of the stats names.
    fn of(caller: &Value) -> Self {
        let Some(function) = caller["function"].as_str() else {
            let address = caller["address"].as_u64().map(|address| format!("{address:#x}"));
            return Self {
                function: String::new(),
                line: address.unwrap_or_else(|| "(not known)".to_owned()),
            };
        };
        let line = caller["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
        let Some(file) = caller["file"].as_str() else { return Self { function: function.to_owned(), line } };
        match file.strip_prefix(guest::PROGRAMS) {
            // `guest-kernel/src/bin/NAME.rs`, or `guest-kernel/src/bin/NAME/more.rs`: NAME is not compared.
            Some(own) => {
                let inside = own.trim_start_matches('/').split_once('/').map_or("", |(_, inside)| inside);
                let function = function.split_once("::").map_or(function, |(_, function)| function);
                Self { function: function.to_owned(), line: format!("{inside}{line}") }
            }
            None => Self { function: function.to_owned(), line: format!("{file}{line}") },
        }
    }

    /// The place as people know it, with the end of its file's path.
    fn shown(&self, caller: &Value) -> String {
        let file = caller["file"].as_str().and_then(|file| file.rsplit('/').next());
        match (file, caller["line"].as_u64()) {
            (Some(file), Some(line)) => format!("{} at {file}:{line}", self.function),
            _ if self.function.is_empty() => self.line.clone(),
            _ => self.function.clone(),
        }
    }
}

/// Two runs, compared.
#[derive(Debug, Serialize)]
struct Difference {
    version: u32,
    before: u64,
    after: u64,
    /// Lines whose exits are not the same, those that changed most first.
    lines: Vec<Changed>,
}

/// A line whose exits changed.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Changed {
    function: String,
    line: String,
    before: u64,
    after: u64,
    before_what: String,
    after_what: String,
    #[serde(skip)]
    shown: String,
}

impl Difference {
    fn between(before: &Side, after: &Side) -> Self {
        let mut places: Vec<_> = before.0.keys().chain(after.0.keys()).collect();
        places.sort();
        places.dedup();
        let by_what = |side: &Side, place: &Place| side.0.get(place).map(|exits| exits.by_what.clone());
        let changed = places.iter().filter(|place| by_what(before, place) != by_what(after, place));
        let mut lines: Vec<_> = changed
            .map(|place| Changed {
                function: place.function.clone(),
                line: place.line.clone(),
                before: before.exits(place),
                after: after.exits(place),
                before_what: before.what(place),
                after_what: after.what(place),
                shown: shown([before, after].map(|side| side.0.get(place))),
            })
            .collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.before.abs_diff(line.after)));
        let total = |side: &Side| places.iter().map(|place| side.exits(place)).sum();
        Self { version: OWN_VERSION, before: total(before), after: total(after), lines }
    }

    fn table(&self) -> String {
        let width = self.lines.iter().map(|line| line.shown.chars().count()).max().unwrap_or(0).max(5);
        let mut text = String::new();
        for line in &self.lines {
            let Changed { shown, before, after, before_what, after_what, .. } = line;
            let (before_what, after_what) = (or_nothing(before_what), or_nothing(after_what));
            text += &format!("{shown:width$} {before:>9} -> {after:<9} {before_what} -> {after_what}\n");
        }
        if self.lines.is_empty() {
            text += "every line made the same exits\n";
        }
        let (before, after) = (self.before, self.after);
        text + &format!("{:width$} {before:>9} -> {after}\n", "total")
    }
}

/// The line as one side knows it, or both.
fn shown(sides: [Option<&Exits>; 2]) -> String {
    let mut names: Vec<&str> = sides.into_iter().flatten().map(|exits| exits.shown.as_str()).collect();
    names.dedup();
    names.join(", ")
}

fn or_nothing(what: &str) -> &str {
    if what.is_empty() { "nothing" } else { what }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stats(rows: &[(&str, &str, u64, &str, u64)]) -> Vec<u8> {
        let row = |(function, file, line, handler, exits): &(&str, &str, u64, &str, u64)| {
            json!({ "caller": { "function": function, "file": file, "line": line, "address": 0 },
                    "kind": "pio-out", "handler": handler, "exits": exits })
        };
        let lines: Vec<_> = rows.iter().map(row).collect();
        json!({ "version": VERSION, "lines": lines }).to_string().into_bytes()
    }

    #[test]
    fn a_line_that_prints_otherwise_is_one_row() {
        let before = stats(&[
            ("_01_hello::main", "guest-kernel/src/bin/01_hello.rs", 22, "console", 14),
            ("guest_kernel::boot::start", "guest-kernel/src/boot.rs", 50, "exit", 1),
        ]);
        let after = stats(&[
            ("hello_fast::main", "guest-kernel/src/bin/hello_fast.rs", 22, "ConsoleWrite", 1),
            ("guest_kernel::boot::start", "guest-kernel/src/boot.rs", 50, "exit", 1),
        ]);
        let (before, after) = (Side::read(&before).expect("stats"), Side::read(&after).expect("stats"));

        let difference = Difference::between(&before, &after);

        let text = difference.table();
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [
                "main at 01_hello.rs:22, main at hello_fast.rs:22 14 -> 1 14 console -> 1 ConsoleWrite"
                    .split(' ')
                    .collect::<Vec<_>>(),
                "total 15 -> 2".split(' ').collect(),
            ]
        );
    }

    #[test]
    fn equal_runs_have_no_rows() {
        let run = Side::read(&stats(&[("a::main", "a.c", 1, "console", 3)])).expect("stats");
        let difference = Difference::between(&run, &run);
        assert!(difference.lines.is_empty() && (difference.before, difference.after) == (3, 3));
    }

    #[test]
    fn what_is_no_stats_is_refused_with_the_reason() {
        for (text, reason) in
            [("x", "no JSON"), ("{\"version\": 2}", "version"), ("{\"version\": 1}", "lines")]
        {
            let error = Side::read(text.as_bytes()).expect_err(text).to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
