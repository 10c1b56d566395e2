//! The fuzzer's command line. `cargo xtask fuzz` builds it as it has to be and passes on what was typed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use fuzz::child::{self, Hunt};
use fuzz::parent::Folders;
use fuzz::targets::{self, TARGETS, Target};
use fuzz::{corpus, edges};

/// Gives what reads a stranger's bytes any bytes, for a while.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask fuzz", max_term_width = 100)]
struct Cli {
    /// Only this target.
    target: Option<String>,
    /// How long in all: `90s`, `2m`.
    #[arg(long, default_value = "2m", value_parser = parse_time)]
    time: Duration,
    /// A run that takes this long does not end.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    hang: Duration,
    /// Where the random numbers start; without one, the clock says.
    #[arg(long)]
    seed: Option<u64>,
    /// Run this file alone, such as one that was found.
    #[arg(long, value_name = "FILE", requires = "target")]
    run: Option<PathBuf>,
    /// List the targets.
    #[arg(long)]
    list: bool,
    /// Put the few inputs that reach most into the corpus of the repository.
    #[arg(long)]
    keep: bool,
    /// The corpora of the repository.
    #[arg(long, value_name = "FOLDER", default_value = "tests/corpus", hide = true)]
    corpus: PathBuf,
    /// Where results go.
    #[arg(long, value_name = "FOLDER", default_value = "target/fuzz", hide = true)]
    results: PathBuf,
    /// Hunt in this process.
    #[arg(long, value_name = "TARGET", hide = true)]
    child: Option<String>,
}

/// What a found failure makes of the command.
const FOUND: u8 = 1;
/// The host could not do its work.
const FAILED: u8 = 100;

fn main() -> ExitCode {
    run(&Cli::parse()).unwrap_or_else(|error| {
        eprintln!("fuzz: {error:#}");
        ExitCode::from(FAILED)
    })
}

fn run(cli: &Cli) -> Result<ExitCode> {
    if cli.list {
        TARGETS.iter().filter(|target| !target.is_hidden).for_each(|t| println!("{:12} {}", t.name, t.about));
        return Ok(ExitCode::SUCCESS);
    }
    let folders = Folders { corpus: cli.corpus.clone(), results: cli.results.clone(), hang: cli.hang };
    if let Some(name) = &cli.child {
        return hunt_here(find(name)?, &folders, cli).map(|()| ExitCode::SUCCESS);
    }
    if let (Some(name), Some(file)) = (&cli.target, &cli.run) {
        let input = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        child::run_file(find(name)?, &input, cli.hang)?;
        println!("nothing happened");
        return Ok(ExitCode::SUCCESS);
    }
    hunt_all(&folders, cli)
}

fn hunt_all(folders: &Folders, cli: &Cli) -> Result<ExitCode> {
    let targets: Vec<&Target> = match &cli.target {
        Some(name) => vec![find(name)?],
        None => TARGETS.iter().filter(|target| !target.is_hidden).collect(),
    };
    let seed = match cli.seed {
        Some(seed) => seed,
        None => std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis() as u64,
    };
    println!("seed {seed}; {}", if edges::are_counted() { "edges are counted" } else { "blindly" });
    let time = cli.time / targets.len() as u32;
    let mut found = Vec::new();
    for target in targets {
        found.extend(folders.hunt(target, time, seed)?.map(|found| (target, found)));
        if cli.keep {
            keep(target, folders)?;
        }
    }
    for (target, found) in &found {
        println!("\n{}: {}\nsaved: {}", target.name, found.message, found.file.display());
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FOUND) })
}

fn hunt_here(target: &Target, folders: &Folders, cli: &Cli) -> Result<()> {
    let results = folders.results.join(target.name);
    let kept = results.join("corpus");
    let hunt = Hunt {
        target,
        time: cli.time,
        hang: cli.hang,
        seed: cli.seed.unwrap_or_default(),
        corpora: vec![folders.corpus.join(target.name), kept.clone()],
        kept,
        current: results.join("current"),
    };
    hunt.run()
}

/// Replaces the files of the repository by the best of them and of what was found. Those that somebody has named stay.
fn keep(target: &Target, folders: &Folders) -> Result<()> {
    let folder = folders.corpus.join(target.name);
    let is_nameless = |(path, input): &(PathBuf, Vec<u8>)| {
        path.file_name().is_some_and(|name| *name == *corpus::name(input))
    };
    let (nameless, named): (Vec<_>, Vec<_>) = corpus::read(&folder)?.into_iter().partition(is_nameless);
    for (file, _) in &nameless {
        std::fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    let new = corpus::read(&folders.results.join(target.name).join("corpus"))?;
    let inputs = nameless.iter().chain(&named).chain(&new).map(|(_, input)| input.clone()).collect();
    for input in corpus::distilled(target, inputs) {
        if !named.iter().any(|(_, other)| *other == input) {
            corpus::write(&folder, &input)?;
        }
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Target> {
    match targets::find(name) {
        Some(target) => Ok(target),
        None => {
            let names: Vec<_> = TARGETS.iter().filter(|t| !t.is_hidden).map(|target| target.name).collect();
            bail!("there is no target `{name}`; there are: {}", names.join(", "))
        }
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| format!("`{text}` is not a time: write 90s or 2m"))?;
    let milliseconds = match text.strip_prefix(digits) {
        Some("ms") => Some(number),
        Some("" | "s") => number.checked_mul(1000),
        Some("m") => number.checked_mul(60_000),
        Some("h") => number.checked_mul(3_600_000),
        _ => None,
    };
    milliseconds.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is not a time: write 90s or 2m"))
}
