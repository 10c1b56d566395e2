//! `vmm run`: configuration, machine, run, report, exit code.

use std::process::ExitCode;

use vmm::{RunReport, Vm};

use crate::cli::Run;
use crate::commands::{failed, watch};
use crate::ctrl_c;

/// Boots a guest; how it ends is the exit code.
pub(super) fn run(arguments: Run) -> ExitCode {
    match build_and_run(arguments) {
        Ok(report) => {
            show_end(&report);
            ExitCode::from(report.stop.process_exit_code())
        }
        Err(error) => failed(&error),
    }
}

fn build_and_run(arguments: Run) -> vmm::Result<RunReport> {
    let mut vm = Vm::build(arguments.machine.into_config()?)?;
    ctrl_c::stop_on_signal(vm.stop_handle())?;
    let report = if arguments.watch.is_idle() { vm.run()? } else { watch::run(&mut vm, &arguments.watch)? };
    for peek in arguments.peeks.look(&vm)? {
        eprintln!("{peek}");
    }
    Ok(report)
}

/// Says how the guest ended, where that must be said.
pub(super) fn show_end(report: &RunReport) {
    if !report.is_unremarkable() {
        eprintln!("vmm: {report}");
    }
}
