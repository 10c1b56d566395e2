//! `cargo xtask fuzz`: builds the fuzzer so that it sees which code an input reaches, and starts it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;

use crate::target;
use crate::workspace::{self, cargo, root, target_directory};

/// LLVM counts the edges between blocks of code: a pass that a stable compiler has, too. `fuzz/src/edges.rs` reads the
/// counters.
const FLAGS: &str = "build.rustflags=[\
    \"-Cpasses=sancov-module\", \
    \"-Cllvm-args=-sanitizer-coverage-level=3\", \
    \"-Cllvm-args=-sanitizer-coverage-inline-8bit-counters\"]";

/// What to try, and for how long. The fuzzer's own command line says the same: `fuzz/src/main.rs`.
#[derive(Args, Debug)]
pub struct Options {
    /// Only this target.
    target: Option<String>,
    /// How long in all: `90s`, `2m`.
    #[arg(long, default_value = "2m")]
    time: String,
    /// Where the random numbers start; without one, the clock says.
    #[arg(long)]
    seed: Option<u64>,
    /// Run this file alone, such as one that was found.
    #[arg(long, value_name = "FILE", requires = "target")]
    run: Option<PathBuf>,
    /// Put the few inputs that reach most into the corpus of the repository.
    #[arg(long)]
    keep: bool,
    /// List the targets.
    #[arg(long)]
    list: bool,
}

impl Options {
    fn words(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = self.target.iter().map(Into::into).collect();
        words.extend(["--time".into(), (&self.time).into()]);
        words.extend(self.seed.iter().flat_map(|seed| ["--seed".into(), seed.to_string().into()]));
        words.extend(self.run.iter().flat_map(|file| ["--run".into(), file.into()]));
        words.extend(self.keep.then(|| "--keep".into()));
        words.extend(self.list.then(|| "--list".into()));
        words
    }
}

/// Builds the fuzzer and runs it.
///
/// # Errors
/// When it cannot be built or started. What it finds is its exit code, 1.
pub fn run(options: &Options) -> Result<ExitCode> {
    // With the host's target named, build scripts and macros are left as they are.
    let host = target::host()?;
    let folder = target_directory().join("fuzz");
    let build = folder.join("build");
    let program = build.join(&host).join("fuzz/fuzz");
    let mut build_fuzzer = cargo();
    build_fuzzer.args([
        "build",
        "--package",
        "fuzz",
        "--bin",
        "fuzz",
        "--profile",
        "fuzz",
        "--target",
        &host,
    ]);
    build_fuzzer.args(["--config", FLAGS]).arg("--target-dir").arg(&build).env_remove("RUSTFLAGS");
    workspace::build(&mut build_fuzzer, &program)?;

    let mut fuzz = Command::new(&program);
    fuzz.args(options.words()).arg("--corpus").arg(root().join("tests/corpus")).arg("--results").arg(&folder);
    let status = fuzz.status().with_context(|| format!("cannot start {}", program.display()))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
