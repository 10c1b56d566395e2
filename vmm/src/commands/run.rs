//! `vmm run`: configuration, machine, run, report, core file, exit code.

use std::process::ExitCode;

use vmm::debug::CoreFile;
use vmm::next::process;
use vmm::{RunReport, Vm};

use crate::cli::Run;
use crate::commands::{chain, failed};
use crate::ctrl_c;

/// Boots a guest; how it ends is the exit code.
pub(super) fn run(arguments: Run) -> ExitCode {
    match build_and_run(arguments) {
        Ok(report) => ExitCode::from(report.stop.process_exit_code()),
        Err(error) => failed(&error),
    }
}

fn build_and_run(arguments: Run) -> vmm::Result<RunReport> {
    let Run { machine, core } = arguments;
    let mut vm = Vm::build(machine.into_config()?)?;
    let core_file = core.path.as_deref().map(CoreFile::create).transpose()?;
    ctrl_c::stop_on_signal(vm.stop_handle())?;
    let report = vm.run()?;
    if !report.is_unremarkable() {
        eprintln!("vmm: {report}");
    }
    let is_wanted = core.always || report.stop.process_exit_code() >= process::PANICKED;
    if let Some(core_file) = core_file.filter(|_| is_wanted) {
        write(core_file, &vm, &report);
    }
    Ok(report)
}

/// Writes the core file. When that fails it is said, and the exit code still tells how the guest ended.
fn write(core_file: CoreFile, vm: &Vm, report: &RunReport) {
    let path = core_file.path().to_owned();
    match core_file.write(vm, report) {
        Ok(remarks) => {
            eprintln!("vmm: memory and registers are in {}", path.display());
            remarks.iter().for_each(|remark| eprintln!("vmm: {}: {remark}", path.display()));
        }
        Err(error) => eprintln!("vmm: {}", chain(&error)),
    }
}
