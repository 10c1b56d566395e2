//! `vmm run`: configuration, machine, run, report, core file, exit code.

use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use shared_abi::exit_code;
use vmm::debug::CoreFile;
use vmm::debug::gdb::{Debugger, Endpoint, Listener};
use vmm::next::process;
use vmm::{Error, RunReport, StopReason, Vm};

use crate::cli::Run;
use crate::commands::{chain, failed, watch};
use crate::ctrl_c;

/// Boots a guest; how it ends is the exit code.
pub(super) fn run(arguments: Run) -> ExitCode {
    match build_and_run(arguments) {
        Ok(report) => ExitCode::from(report.stop.process_exit_code()),
        Err(error) => failed(&error),
    }
}

fn build_and_run(arguments: Run) -> vmm::Result<RunReport> {
    let Run { machine, watch, peeks, core, no_debug_info, json_report, gdb } = arguments;
    let how = Telling { without_lines: no_debug_info, json: json_report };
    let mut vm = Vm::build(machine.into_config()?)?;
    let core_file = core.path.as_deref().map(CoreFile::create).transpose()?;
    ctrl_c::stop_on_signal(vm.stop_handle())?;
    let report = match gdb {
        Some(endpoint) => debug(&mut vm, endpoint)?,
        None if watch.is_idle() => vm.run()?,
        None => watch::run(&mut vm, &watch)?,
    };
    let told = how.tell(&vm, &report);
    let is_wanted = core.always || report.stop.process_exit_code() >= process::PANICKED;
    if let Some(core_file) = core_file.filter(|_| is_wanted) {
        write(core_file, &vm, &report);
    }
    for peek in peeks.look(&vm)? {
        eprintln!("{peek}");
    }
    told.map(|()| report)
}

/// Runs `vm` under the debugger that connects at `endpoint`.
fn debug(vm: &mut Vm, endpoint: Endpoint) -> vmm::Result<RunReport> {
    let listener = Listener::bind(endpoint)?;
    let (image, endpoint) = (vm.image().path().display(), listener.endpoint());
    eprintln!(
        "vmm: the guest waits at its first instruction for a debugger: gdb {image} -ex 'target remote {endpoint}'"
    );
    vm.debug(Debugger::Awaited(listener), &|sentence| eprintln!("vmm: {sentence}"))
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

/// Says how the guest ended, where that must be said: a bad end with its cause.
pub(super) fn tell_end(vm: &Vm, report: &RunReport) {
    let told = Telling { without_lines: false, json: None }.tell(vm, report);
    told.expect("nothing is written to a file");
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

/// Whether the guest's own word does not say it all, or its debugger's.
fn is_a_riddle(stop: &StopReason) -> bool {
    match stop {
        StopReason::Exited { code } => *code == exit_code::PANICKED,
        StopReason::DebuggerLeft { .. } => false,
        _ => true,
    }
}
