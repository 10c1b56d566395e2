//! The workspace: where it is, and how its cargo is called.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};

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
