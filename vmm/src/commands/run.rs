//! `vmm run`: configuration, machine, run, report, exit code.

use std::process::ExitCode;

use vmm::debug::gdb::{Debugger, Endpoint, Listener};
use vmm::{RunReport, Vm};

use crate::cli::Run;
use crate::commands::failed;
use crate::ctrl_c;

/// Boots a guest; how it ends is the exit code.
pub(super) fn run(arguments: Run) -> ExitCode {
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

fn build_and_run(arguments: Run) -> vmm::Result<RunReport> {
    let mut vm = Vm::build(arguments.machine.into_config()?)?;
    ctrl_c::stop_on_signal(vm.stop_handle())?;
    match arguments.gdb {
        None => vm.run(),
        Some(endpoint) => {
            let listener = Listener::bind(endpoint)?;
            announce(&vm, listener.endpoint());
            vm.debug(Debugger::Awaited(listener), &|sentence| eprintln!("vmm: {sentence}"))
        }
    }
}

/// Says what to type to debug the guest.
fn announce(vm: &Vm, endpoint: &Endpoint) {
    let image = vm.image().path().display();
    eprintln!(
        "vmm: the guest waits at its first instruction for a debugger: gdb {image} -ex 'target remote {endpoint}'"
    );
}
