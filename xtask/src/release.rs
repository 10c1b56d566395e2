//! `cargo xtask release`: the `vmm` that others are given: optimised, static, one file that runs on any Linux.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::{self, Profile};

/// Builds it and prints where it is.
///
/// # Errors
/// When it cannot be built.
pub fn run() -> Result<ExitCode> {
    let vmm = workspace::build_static(&["vmm"], Profile::Release)?.join("vmm");
    let size = vmm.metadata().with_context(|| format!("cannot look at {}", vmm.display()))?.len();
    eprintln!("xtask: {} MiB with its debug information; `strip` leaves a fifth", size >> 20);
    println!("{}", vmm.display());
    Ok(ExitCode::SUCCESS)
}
