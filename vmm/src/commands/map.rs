//! `vmm map`: guest memory as one table.

use std::process::ExitCode;

use vmm::explain::{MemoryMap, When};
use vmm::next::process;
use vmm::{Vm, VmConfig};

use super::run::tell_end;
use crate::cli::Map;
use crate::commands::{failed, has_colour, print_json, print_text};
use crate::ctrl_c;

/// Shows the map; the exit code says whether it could be made.
pub(super) fn map(arguments: Map) -> ExitCode {
    let Map { machine, at_stop, all, json } = arguments;
    let mapped = machine.into_quiet_config().and_then(|config| {
        let (vm, when) = machine_at(config, at_stop)?;
        MemoryMap::of(&vm, when, all)
    });
    match mapped {
        Ok(map) => {
            if json {
                print_json(&map);
            } else {
                print_text(&map.render(has_colour()));
            }
            ExitCode::from(process::SUCCESS)
        }
        Err(error) => failed(&error),
    }
}

/// The machine before its first instruction, or where its guest stopped.
pub(super) fn machine_at(config: VmConfig, at_stop: bool) -> vmm::Result<(Vm, When)> {
    let mut vm = Vm::build(config)?;
    if !at_stop {
        return Ok((vm, When::Start));
    }
    ctrl_c::stop_on_signal(vm.stop_handle())?;
    let report = vm.run()?;
    tell_end(&vm, &report);
    Ok((vm, When::Stop))
}
