//! `vmm doctor`: can guests run here?

use std::path::PathBuf;
use std::process::ExitCode;

use vmm::doctor;
use vmm::features::Features;
use vmm::next::process;

use crate::cli::Doctor;
use crate::commands::has_colour;

/// Shows the diagnosis, or the features; whether guests can run is the exit code.
pub(super) fn run(arguments: &Doctor) -> ExitCode {
    if arguments.features {
        return features(arguments.json);
    }
    let diagnosis = doctor::examine();
    if arguments.json {
        println!("{}", diagnosis.to_json());
    } else {
        println!("{}", diagnosis.render(has_colour()));
    }
    ExitCode::from(if diagnosis.can_run_guests() { process::SUCCESS } else { process::HOST_FAILED })
}

fn features(json: bool) -> ExitCode {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let found = folder.map_or_else(Features::probe, |folder| Features::known(&folder));
    match found {
        Ok(features) if json => println!("{}", features.to_json()),
        Ok(features) => println!("{}", features.render(has_colour())),
        Err(error) => return super::failed(&error),
    }
    ExitCode::from(process::SUCCESS)
}
