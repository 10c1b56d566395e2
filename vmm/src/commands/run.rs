//! `vmm run`: configuration, machine, run, report, exit code.

use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use shared_abi::exit_code;
use vmm::{Error, RunReport, StopReason, Vm};

use crate::cli::Run;
use crate::commands::failed;
use crate::ctrl_c;

/// Boots a guest; how it ends is the exit code.
pub(super) fn run(arguments: Run) -> ExitCode {
    match build_and_run(arguments) {
        Ok(report) => ExitCode::from(report.stop.process_exit_code()),
        Err(error) => failed(&error),
    }
}

fn build_and_run(arguments: Run) -> vmm::Result<RunReport> {
    let how = Telling { without_lines: arguments.no_debug_info, json: arguments.json_report };
    let mut vm = Vm::build(arguments.machine.into_config()?)?;
    ctrl_c::stop_on_signal(vm.stop_handle())?;
    let report = vm.run()?;
    how.tell(&vm, &report)?;
    Ok(report)
}

/// How a bad end is told.
struct Telling {
    without_lines: bool,
    json: Option<PathBuf>,
}

impl Telling {
    fn tell(&self, vm: &Vm, report: &RunReport) -> vmm::Result<()> {
        if report.is_unremarkable() {
            return Ok(());
        }
        if !is_a_riddle(&report.stop) {
            eprintln!("vmm: {report}");
            return Ok(());
        }
        let symbols = if self.without_lines { vm.symbols().names_only() } else { vm.symbols() };
        let diagnosis = vm.diagnose_with(report, &symbols);
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprintln!("vmm: {}", diagnosis.render(colour));
        match &self.json {
            Some(path) => fs::write(path, diagnosis.to_json())
                .map_err(|source| Error::DiagnosisFile { path: path.clone(), source }),
            None => Ok(()),
        }
    }
}

/// Whether the guest's own word does not say it all.
fn is_a_riddle(stop: &StopReason) -> bool {
    !matches!(stop, StopReason::Exited { code } if *code != exit_code::PANICKED)
}
