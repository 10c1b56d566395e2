//! `vmm doctor`: can guests run here?

use std::process::ExitCode;

use vmm::doctor;
use vmm::next::process;

use crate::cli::Doctor;
use crate::commands::has_colour;

/// Shows the diagnosis; whether guests can run is the exit code.
pub(super) fn diagnose(arguments: &Doctor) -> ExitCode {
    let diagnosis = doctor::examine();
    if arguments.json {
        println!("{}", diagnosis.to_json());
    } else {
        println!("{}", diagnosis.render(has_colour()));
    }
    ExitCode::from(if diagnosis.can_run_guests() { process::SUCCESS } else { process::HOST_FAILED })
}
