//! `cargo xtask release`: the `vmm` that others are given: optimised, static, one file that runs on any Linux.

use std::process::ExitCode;

use anyhow::Result;

use crate::workspace::{self, Profile};

/// Builds it and prints where it is.
///
/// # Errors
/// When it cannot be built.
pub fn run() -> Result<ExitCode> {
    let vmm = workspace::build_static(&["vmm"], Profile::Release)?.join("vmm");
    println!("{}", vmm.display());
    Ok(ExitCode::SUCCESS)
}
