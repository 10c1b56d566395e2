//! The `vmm` program: arguments, then the command they name.

mod arena;
mod cli;
mod commands;
mod ctrl_c;
mod say;

use std::process::ExitCode;

#[global_allocator]
static MEMORY: arena::Arena = arena::Arena::new();

fn main() -> ExitCode {
    commands::execute(cli::parse())
}
