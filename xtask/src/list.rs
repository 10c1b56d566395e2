//! `cargo xtask list`: the guest programs and what they are about.

use std::process::ExitCode;

use anyhow::Result;

use crate::guest;

/// Prints the programs, one a line, or as JSON.
///
/// # Errors
/// When their folder cannot be read.
pub fn run(json: bool) -> Result<ExitCode> {
    let programs = guest::programs()?;
    if json {
        println!("{}", serde_json::to_string_pretty(&programs)?);
        return Ok(ExitCode::SUCCESS);
    }
    let width = programs.iter().map(|program| program.name.len()).max().unwrap_or(0);
    for program in programs {
        println!("{:width$}  {}", program.name, program.summary);
    }
    Ok(ExitCode::SUCCESS)
}
