//! The workspace: where it is, and how its cargo is called.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::target;

/// The folder with the workspace's `Cargo.toml`.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// Where cargo puts what it builds.
#[must_use]
pub fn target_directory() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// The cargo that runs us, in the workspace.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// How optimised a program is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Profile {
    /// Unoptimised, with overflow checks; the default.
    #[default]
    Debug,
    /// Optimised.
    Release,
}

impl Profile {
    /// What cargo wants to be told.
    #[must_use]
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Debug => &[],
            Self::Release => &["--release"],
        }
    }

    /// The folder below the target directory.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// Runs `command` to its end; an error names it when it fails.
///
/// # Errors
/// When it cannot be started or its exit code is not 0.
pub fn check(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed: {status}", words(command));
    }
    Ok(())
}

/// Runs `command` to its end.
///
/// # Errors
/// When it cannot be started.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot start `{}`", words(command)))
}

/// The command as a person would type it.
#[must_use]
pub fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Builds the VMM and says where it is.
///
/// # Errors
/// When cargo fails; what the compiler says is on stderr.
pub fn build_vmm(profile: Profile) -> Result<PathBuf> {
    let vmm = target_directory().join(profile.directory()).join("vmm");
    let mut cargo = cargo();
    cargo.args(["build", "--package", "vmm", "--bin", "vmm"]).args(profile.flags());
    build(&mut cargo, &vmm)?;
    Ok(vmm)
}

/// A cargo whose products need no library and run under emulation: optimised a little, as an emulated CPU is slow, and
/// without debug information of variables, which would have to be copied there.
fn static_cargo(command: &str) -> Result<Command> {
    target::ensure(target::STATIC)?;
    let mut cargo = cargo();
    cargo.args([command, "--target", target::STATIC]);
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    Ok(cargo)
}

/// Builds these programs, each in the package of its name, for another Linux; says in which folder they are.
///
/// # Errors
/// When the target cannot be installed, or cargo fails; what the compiler says is on stderr.
pub fn build_static(programs: &[&str], profile: Profile) -> Result<PathBuf> {
    let folder = target_directory().join(target::STATIC).join(profile.directory());
    let mut cargo = static_cargo("build")?;
    cargo.args(profile.flags());
    for program in programs {
        cargo.args(["--package", program, "--bin", program]);
    }
    let missing = programs.iter().map(|program| folder.join(program)).find(|program| !program.exists());
    build(&mut cargo, &missing.unwrap_or_else(|| folder.clone()))?;
    Ok(folder)
}

/// A program that cargo has built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The file that it begins in, relative to the workspace.
    pub source: PathBuf,
    /// Where it is.
    pub program: PathBuf,
}

/// Builds the tests of these packages, of these kinds (`--lib`, …), for another Linux; says what they are.
///
/// # Errors
/// As [`build_static`].
pub fn build_static_tests(packages: &[&str], kinds: &[&str]) -> Result<Vec<Built>> {
    let mut cargo = static_cargo("test")?;
    for package in packages {
        cargo.args(["--package", package]);
    }
    cargo.args(kinds);
    eprintln!("xtask: {}", words(&cargo));
    build_tests(&mut cargo)
}

/// Runs a `cargo test` as far as building goes; says what the tests are.
///
/// # Errors
/// When cargo fails; what the compiler says is on stderr.
pub fn build_tests(cargo: &mut Command) -> Result<Vec<Built>> {
    cargo.args(["--no-run", "--message-format=json-render-diagnostics"]).stderr(Stdio::inherit());
    let words = words(cargo);
    let output = cargo.output().with_context(|| format!("cannot start `{words}`"))?;
    if !output.status.success() {
        bail!("`{words}` failed: {}", output.status);
    }
    let messages = output.stdout.split(|&byte| byte == b'\n').map(serde_json::from_slice);
    Ok(messages.flatten().filter_map(|message: Value| built_test(&message)).collect())
}

/// The test that a message of cargo's tells of.
fn built_test(message: &Value) -> Option<Built> {
    if message["profile"]["test"] != true {
        return None;
    }
    let source = Path::new(message["target"]["src_path"].as_str()?);
    let source = source.strip_prefix(root()).unwrap_or(source).to_owned();
    Some(Built { source, program: PathBuf::from(message["executable"].as_str()?) })
}

/// Runs a cargo that builds `product`. The first build takes a while and shows its progress; later ones speak only
/// when there is something to say.
///
/// # Errors
/// When cargo fails; what the compiler says is on stderr.
pub fn build(cargo: &mut Command, product: &Path) -> Result<()> {
    if product.exists() {
        cargo.arg("--quiet");
    }
    check(cargo)
}
