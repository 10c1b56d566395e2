//! `vmm explain`: runs a guest and answers where everything was.

use std::process::ExitCode;

use serde::Serialize;
use vmm::explain::{self, Answers, Peek};
use vmm::{RunReport, Vm};

use super::run::tell_end;
use crate::cli::Explain;
use crate::commands::{failed, has_colour, print_json, print_text};
use crate::ctrl_c;

/// The answers, and what was looked at after the run.
#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    answers: Answers,
    peeks: Vec<Peek>,
}

/// Explains a guest; how it ends is the exit code.
pub(super) fn explain(arguments: Explain) -> ExitCode {
    let json = arguments.json;
    match build_and_explain(arguments) {
        Ok((explained, report, vm)) => {
            if json {
                print_json(&explained);
            } else {
                let peeks = explained.peeks.iter().map(|peek| format!("\n\n{peek}"));
                print_text(&(explained.answers.render(has_colour()) + &peeks.collect::<String>()));
            }
            tell_end(&vm, &report);
            ExitCode::from(report.stop.process_exit_code())
        }
        Err(error) => failed(&error),
    }
}

fn build_and_explain(arguments: Explain) -> vmm::Result<(Explained, RunReport, Vm)> {
    let mut vm = Vm::build(arguments.machine.into_quiet_config()?)?;
    ctrl_c::stop_on_signal(vm.stop_handle())?;
    let (answers, report) = explain::run(&mut vm)?;
    let peeks = arguments.peeks.look(&vm)?;
    Ok((Explained { answers, peeks }, report, vm))
}
