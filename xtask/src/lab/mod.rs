//! `cargo xtask lab`: measures something on the user's own machine and shows it as a table.

mod console;
mod ksm;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

/// What can be measured.
#[derive(Clone, Debug, Subcommand)]
pub enum Lab {
    /// The ways for text out of a guest: exits and time of the same 4 KiB by each of them.
    Console {
        /// How often each way is measured.
        #[arg(long, default_value_t = 10)]
        runs: u32,
        /// Print the table as JSON.
        #[arg(long)]
        json: bool,
    },
    /// What the host saves when several machines hold equal pages (KSM): shared, private and saved pages over time.
    Ksm(ksm::Options),
}

/// Runs one laboratory.
///
/// # Errors
/// When something cannot be built, started or understood.
pub fn run(lab: &Lab) -> Result<ExitCode> {
    match lab {
        Lab::Console { runs, json } => console::run(*runs, *json),
        Lab::Ksm(options) => ksm::run(options),
    }
}
