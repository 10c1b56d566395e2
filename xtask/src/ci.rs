//! `cargo xtask ci`: what a change must pass.

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::{self, cargo};
use crate::{qemu, target, test};

/// Runs `lint`, then `test`.
///
/// # Errors
/// When a check fails or cannot be started.
pub fn run() -> Result<ExitCode> {
    lint()?;
    test::run(None, &qemu::Options::default())
}

/// Checks format, lints (of the host's code, then of the guest's for its own target) and documentation.
///
/// # Errors
/// When a check fails; what it has to say is on stderr.
pub fn lint() -> Result<ExitCode> {
    target::ensure(target::GUEST)?;
    let checks: [&[&str]; 5] = [
        &["fmt", "--all", "--check"],
        &["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"],
        &[
            "clippy",
            "--package",
            "guest-kernel",
            "--target",
            target::GUEST,
            "--all-targets",
            "--",
            "-Dwarnings",
        ],
        // Not its tests: on this target there is no crate `test`.
        &[
            "clippy",
            "--package",
            "user-library",
            "--target",
            target::GUEST,
            "--lib",
            "--bins",
            "--",
            "-Dwarnings",
        ],
        &["doc", "--workspace", "--no-deps"],
    ];
    for check in checks {
        let mut cargo = cargo();
        cargo.args(check).env("RUSTDOCFLAGS", "-Dwarnings");
        eprintln!("xtask: {}", workspace::words(&cargo));
        workspace::check(&mut cargo)?;
    }
    Ok(ExitCode::SUCCESS)
}
