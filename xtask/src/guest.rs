//! Guest programs: what there is, and the one place that knows how they are built.
//!
//! How they are linked stands in `.cargo/config.toml`; so plain `cargo build --target x86_64-unknown-none` gives the
//! same programs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::target;
use crate::workspace::{self, Profile};

/// A guest program: one file, or one folder with a `main.rs`, in `guest-kernel/src/bin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Program {
    /// What `cargo xtask run` calls it.
    pub name: String,
    /// Its source, relative to the workspace.
    pub source: PathBuf,
    /// The first line of its documentation.
    pub summary: String,
}

/// The folder of the programs, relative to the workspace.
pub const PROGRAMS: &str = "guest-kernel/src/bin";

/// The program that runs when none is named.
pub const DEFAULT_PROGRAM: &str = "01_hello";

/// All programs, by name.
///
/// # Errors
/// When the folder cannot be read.
pub fn programs() -> Result<Vec<Program>> {
    let folder = workspace::root().join(PROGRAMS);
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut programs = Vec::new();
    for entry in entries {
        programs.extend(program_at(&entry?.path())?);
    }
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

fn program_at(path: &Path) -> Result<Option<Program>> {
    let source = if path.is_dir() { path.join("main.rs") } else { path.to_owned() };
    if source.extension().is_none_or(|extension| extension != "rs") || !source.is_file() {
        return Ok(None);
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let text = fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let summary = text.lines().find_map(|line| line.strip_prefix("//! ")).unwrap_or_default().to_owned();
    let source = source.strip_prefix(workspace::root()).unwrap_or(&source).to_owned();
    Ok(Some(Program { name, source, summary }))
}

/// What a program's ELF file tells about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DebugInfo {
    /// Functions, files, lines and variables; the default.
    #[default]
    Full,
    /// Names of functions alone.
    None,
}

/// Builds the program `name` and says where its ELF file is.
///
/// # Errors
/// When there is no such program, the target cannot be installed, or the compiler has something to say.
pub fn build(name: &str, profile: Profile) -> Result<PathBuf> {
    build_with(name, profile, DebugInfo::Full)
}

/// Builds the program `name` with as much debug information as asked for, and says where its ELF file is.
///
/// # Errors
/// As [`build`].
pub fn build_with(name: &str, profile: Profile, debug_info: DebugInfo) -> Result<PathBuf> {
    let programs = programs()?;
    if !programs.iter().any(|program| program.name == name) {
        let names: Vec<_> = programs.iter().map(|program| program.name.as_str()).collect();
        bail!(
            "there is no guest program `{name}` in {PROGRAMS}; there are: {}. `cargo xtask new {name}` writes it",
            names.join(", ")
        );
    }
    let (flags, folder) = match debug_info {
        DebugInfo::Full => (profile.flags(), profile.directory()),
        DebugInfo::None => without_debug_info(profile),
    };
    let image = workspace::target_directory().join(target::GUEST).join(folder).join(name);
    cargo_build(&["--bin", name], flags, &image)?;
    Ok(image)
}

/// Builds all programs.
///
/// # Errors
/// As [`build`].
pub fn build_all(profile: Profile) -> Result<()> {
    cargo_build(&["--bins"], profile.flags(), &directory(profile).join(DEFAULT_PROGRAM))
}

/// Builds the in-guest tests of `guest-kernel/tests/NAME.rs`, and says where their ELF file is.
///
/// # Errors
/// When the target cannot be installed, or the compiler has something to say.
pub fn build_tests(name: &str) -> Result<PathBuf> {
    target::ensure(target::GUEST)?;
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--quiet", "--package", "guest-kernel", "--target", target::GUEST, "--test", name]);
    let tests = workspace::build_tests(&mut cargo)?;
    let image = tests.into_iter().next().map(|built| built.program);
    image.with_context(|| format!("cargo builds no tests `{name}`"))
}

/// Where the ELF files of the programs lie.
#[must_use]
pub fn directory(profile: Profile) -> PathBuf {
    workspace::target_directory().join(target::GUEST).join(profile.directory())
}

/// What cargo wants to be told, and the folder: the profile of this name in the workspace's `Cargo.toml`.
fn without_debug_info(profile: Profile) -> (&'static [&'static str], &'static str) {
    match profile {
        Profile::Debug => (&["--profile", "no-debug-info"], "no-debug-info"),
        Profile::Release => (&["--profile", "release-no-debug-info"], "release-no-debug-info"),
    }
}

fn cargo_build(what: &[&str], flags: &[&str], product: &Path) -> Result<()> {
    target::ensure(target::GUEST)?;
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--package", "guest-kernel", "--target", target::GUEST]).args(flags);
    workspace::build(cargo.args(what), product)
}
