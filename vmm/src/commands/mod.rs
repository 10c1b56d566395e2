//! The commands of `vmm`, a file each.

mod doctor;
mod explain;
mod map;
mod press;
mod run;
mod snapshot;
mod test;
mod walk;
mod watch;

use std::error::Error as _;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use shared_abi::contract::Note;
use vmm::Error;
use vmm::guest_tests::TestImage;
use vmm::next::process;

use crate::cli::{Cli, Command};
use crate::say::say;

/// Does what was typed.
pub(crate) fn execute(command: Command) -> ExitCode {
    match command {
        Command::Run(arguments) => run::run(*arguments),
        Command::Explain(arguments) => explain::explain(*arguments),
        Command::Map(arguments) => map::map(*arguments),
        Command::Walk(arguments) => walk::walk(*arguments),
        Command::Test(arguments) => test::run(*arguments).unwrap_or_else(|error| failed(&error)),
        Command::Runner { image, words } => run_built(image, words),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Contract => {
            print_text(Note::THIS.text().trim_end());
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "vmm", &mut script);
            print_text(String::from_utf8_lossy(&script).trim_end());
            ExitCode::SUCCESS
        }
    }
}

/// Runs a program or tests, whichever the image is.
fn run_built(image: PathBuf, words: Vec<OsString>) -> ExitCode {
    let command = match TestImage::open(&image) {
        Ok(Some(_)) => "test",
        Ok(None) => "run",
        Err(error) => return failed(&error),
    };
    let words = ["vmm".into(), command.into(), image.into()].into_iter().chain(words);
    execute(Cli::parse_from(words).command)
}

/// Whether people see colours: on a terminal, unless they said no (<https://no-color.org>).
fn has_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Prints data as JSON; a reader that has gone away is no failure.
fn print_json(data: &impl serde::Serialize) {
    let json = serde_json::to_string_pretty(data).expect("strings, numbers and lists are always JSON");
    print_text(&json);
}

/// Prints text and a newline; a reader that has gone away, such as `head`, is no failure. Whatever else is one ends the
/// program.
fn print_text(text: &str) {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            say!("vmm: cannot write to stdout: {error}");
            std::process::exit(process::HOST_FAILED.into());
        }
        _ => {}
    }
}

fn failed(error: &Error) -> ExitCode {
    say!("vmm: {}", chain(error));
    if matches!(error, Error::OpenKvm(_) | Error::ApiVersion(_)) {
        say!("\n{}", vmm::doctor::examine());
    }
    ExitCode::from(process::HOST_FAILED)
}

/// The error and its causes on one line.
fn chain(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    // A file name may hold anything.
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    line.chars().map(shown).collect()
}
