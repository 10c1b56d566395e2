//! The `vmm` program: arguments, then the command they name.

mod cli;
mod commands;
mod ctrl_c;
mod say;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    commands::execute(cli::Cli::parse().command)
}
