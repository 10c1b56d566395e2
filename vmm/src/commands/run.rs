//! `vmm run`: configuration, machine, run, report, core file, exit code.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use shared_abi::exit_code;

use vmm::debug::gdb::{Debugger, Endpoint, Listener};
use vmm::debug::{CoreFile, Diagnosis};
use vmm::next::process;
use vmm::{Error, Input, RunReport, StopReason, Vm};

use crate::cli::Run;
use crate::commands::press::Pressing;
use crate::commands::snapshot;
use crate::commands::watch::{self, Outputs};
use crate::commands::{chain, failed};
use crate::ctrl_c;
use crate::say::say;

/// Boots a guest; how it ends is the exit code.
pub(super) fn run(arguments: Run) -> ExitCode {
    match build_and_run(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => failed(&error),
    }
}

fn build_and_run(arguments: Run) -> vmm::Result<u8> {
    let Run { machine, watch, press, peeks, expectations, core, snapshots, no_debug_info, json_report, gdb } =
        arguments;
    let mut vm = if snapshots.restore {
        snapshot::go_on(machine, &snapshots, &press)?
    } else {
        let mut config = machine.into_config()?;
        if press.button {
            config.input = Input::bytes([]);
        }
        config.snapshots = snapshot::calls(&snapshots);
        Vm::build(config)?
    };
    let how = Telling { without_lines: no_debug_info };
    let json_report = json_report.map(JsonReport::create).transpose()?;
    let core_file = core.path.as_deref().map(CoreFile::create).transpose()?;
    let outputs = Outputs::open(&vm, &watch)?;
    ctrl_c::stop_on_signal(vm.stop_handle())?;
    let _pressing = Pressing::start(&press, &vm)?;
    let report = match gdb {
        Some(endpoint) => debug(&mut vm, endpoint)?,
        None if snapshots.to.is_some() => snapshot::run(&mut vm, &snapshots)?,
        None if watch.is_idle() => vm.run()?,
        None => watch::run(&mut vm, &watch, outputs)?,
    };
    let diagnosis = how.tell(&vm, &report);
    if let Some(json_report) = json_report {
        json_report.write(diagnosis.as_ref());
    }
    let is_wanted = core.always || report.stop.process_exit_code() >= process::PANICKED;
    if let Some(core_file) = core_file.filter(|_| is_wanted) {
        write(core_file, &vm, &report);
    }
    for peek in peeks.look(&vm)? {
        say!("{peek}");
    }
    let code = report.stop.process_exit_code();
    if code != process::SUCCESS {
        return Ok(code);
    }
    let unmet = expectations.unmet(&vm)?;
    unmet.iter().for_each(|sentence| say!("vmm: {sentence}"));
    Ok(if unmet.is_empty() { process::SUCCESS } else { process::UNEXPECTED })
}

/// Runs `vm` under the debugger that connects at `endpoint`.
fn debug(vm: &mut Vm, endpoint: Endpoint) -> vmm::Result<RunReport> {
    let listener = Listener::bind(endpoint)?;
    let (image, endpoint) = (vm.image().path().display(), listener.endpoint());
    say!(
        "vmm: the guest waits at its first instruction for a debugger: gdb {image} -ex 'target remote {endpoint}'"
    );
    vm.debug(Debugger::Awaited(listener), &|sentence| say!("vmm: {sentence}"))
}

/// Writes the core file. When that fails it is said, and the exit code still tells how the guest ended.
fn write(core_file: CoreFile, vm: &Vm, report: &RunReport) {
    let path = core_file.path().to_owned();
    match core_file.write(vm, report) {
        Ok(remarks) => {
            say!("vmm: memory and registers are in {}", path.display());
            remarks.iter().for_each(|remark| say!("vmm: {}: {remark}", path.display()));
        }
        Err(error) => say!("vmm: {}", chain(&error)),
    }
}

/// Says how the guest ended, where that must be said: a bad end with its cause.
pub(super) fn tell_end(vm: &Vm, report: &RunReport) {
    Telling { without_lines: false }.tell(vm, report);
}

/// The file that gets the diagnosis. What it held before is gone when the guest starts: it would tell of another run.
struct JsonReport {
    path: PathBuf,
    file: File,
}

impl JsonReport {
    fn create(path: PathBuf) -> vmm::Result<Self> {
        match File::create(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => Err(Error::DiagnosisFile { path, source }),
        }
    }

    /// Writes the diagnosis; without one there is no file. What fails is said, and the exit code still tells how the guest
    /// ended.
    fn write(mut self, diagnosis: Option<&Diagnosis>) {
        let done = match diagnosis {
            Some(diagnosis) => self.file.write_all(diagnosis.to_json().as_bytes()),
            None => fs::remove_file(&self.path),
        };
        if let Err(source) = done {
            say!("vmm: {}", chain(&Error::DiagnosisFile { path: self.path, source }));
        }
    }
}

/// How a bad end is told.
struct Telling {
    without_lines: bool,
}

impl Telling {
    /// Says how the guest ended, and gives the diagnosis, if one was needed.
    fn tell(&self, vm: &Vm, report: &RunReport) -> Option<Diagnosis> {
        if report.is_unremarkable() {
            return None;
        }
        if !is_a_riddle(&report.stop) {
            say!("vmm: {report}");
            return None;
        }
        let symbols = if self.without_lines { vm.symbols().names_only() } else { vm.symbols() };
        let diagnosis = vm.diagnose_with(report, &symbols);
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        say!("vmm: {}", diagnosis.render(colour));
        Some(diagnosis)
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
