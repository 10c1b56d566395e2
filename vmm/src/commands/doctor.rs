//! `vmm doctor`: can guests run here?

use std::path::PathBuf;
use std::process::ExitCode;

use vmm::doctor;
use vmm::features::Features;
use vmm::next::process;

use crate::cli::Doctor;
use crate::commands::has_colour;
use crate::commands::print_text;

/// Shows the diagnosis, or the features; whether guests can run is the exit code.
pub(super) fn run(arguments: &Doctor) -> ExitCode {
    if arguments.features {
        return features(arguments.json);
    }
    let diagnosis = doctor::examine();
    if arguments.json {
        print_text(&diagnosis.to_json());
    } else {
        print_text(&diagnosis.render(has_colour()));
    }
    ExitCode::from(if diagnosis.can_run_guests() { process::SUCCESS } else { process::HOST_FAILED })
}

fn features(json: bool) -> ExitCode {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let found = folder.map_or_else(Features::probe, |folder| Features::known(&folder));
    match found {
        Ok(features) if json => print_text(&features.to_json()),
        Ok(features) => print_text(&features.render(has_colour())),
        Err(error) => return super::failed(&error),
    }
    ExitCode::from(process::SUCCESS)
}
