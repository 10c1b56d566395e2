//! `vmm doctor`: can guests run here?

use std::io::IsTerminal;
use std::process::ExitCode;

use vmm::doctor;
use vmm::next::process;

use crate::cli::Doctor;

/// Shows the diagnosis; whether guests can run is the exit code.
pub(super) fn diagnose(arguments: &Doctor) -> ExitCode {
    let diagnosis = doctor::examine();
    if arguments.json {
        println!("{}", diagnosis.to_json());
    } else {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        println!("{}", diagnosis.render(colour));
    }
    ExitCode::from(if diagnosis.can_run_guests() { process::SUCCESS } else { process::HOST_FAILED })
}
