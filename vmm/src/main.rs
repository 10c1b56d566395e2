//! The `vmm` program: arguments, configuration, machine, run, report, exit code.

mod cli;
mod ctrl_c;
mod test_command;

use std::error::Error as _;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use shared_abi::contract::Note;
use vmm::guest_tests::TestImage;
use vmm::next::process;
use vmm::{Error, RunReport, Vm, doctor};

use cli::{Cli, Command, Doctor, Run};

fn main() -> ExitCode {
    execute(Cli::parse().command)
}

fn execute(command: Command) -> ExitCode {
    match command {
        Command::Run(arguments) => run(*arguments),
        Command::Test(arguments) => test_command::run(*arguments).unwrap_or_else(|error| failed(&error)),
        Command::Runner { image, words } => run_built(image, words),
        Command::Doctor(arguments) => diagnose(&arguments),
        Command::Contract => {
            print!("{}", Note::THIS.text());
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "vmm", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

fn run(arguments: Run) -> ExitCode {
    match build_and_run(arguments) {
        Ok(report) => {
            if !report.is_unremarkable() {
                eprintln!("vmm: {report}");
            }
            ExitCode::from(report.stop.process_exit_code())
        }
        Err(error) => failed(&error),
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

fn failed(error: &Error) -> ExitCode {
    eprintln!("vmm: {}", chain(error));
    if matches!(error, Error::OpenKvm(_) | Error::ApiVersion(_)) {
        eprintln!("\n{}", doctor::examine());
    }
    ExitCode::from(process::HOST_FAILED)
}

fn build_and_run(arguments: Run) -> vmm::Result<RunReport> {
    let mut vm = Vm::build(arguments.into_config()?)?;
    ctrl_c::stop_on_signal(vm.stop_handle())?;
    vm.run()
}

fn diagnose(arguments: &Doctor) -> ExitCode {
    let diagnosis = doctor::examine();
    if arguments.json {
        println!("{}", diagnosis.to_json());
    } else {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        println!("{}", diagnosis.render(colour));
    }
    ExitCode::from(if diagnosis.can_run_guests() { process::SUCCESS } else { process::HOST_FAILED })
}

/// The error and its causes on one line.
fn chain(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    // A file name may hold a line break.
    line.replace('\n', "\\n")
}
