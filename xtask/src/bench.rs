//! `cargo xtask bench`: measurements, each beside its limit in the same run.

use std::process::ExitCode;

use anyhow::Result;

use crate::guest;
use crate::workspace::{self, Profile, cargo};

/// Builds the guest half and runs the host half: `vmm/benches`.
///
/// # Errors
/// When something cannot be built, or a measurement fails.
pub fn run() -> Result<ExitCode> {
    let image = guest::build("bench", Profile::Release)?;
    let mut bench = cargo();
    bench
        .args(["bench", "--quiet", "--package", "vmm", "--bench", "hypercall"])
        .env("DUET_BENCH_GUEST", image);
    workspace::check(&mut bench)?;
    Ok(ExitCode::SUCCESS)
}
