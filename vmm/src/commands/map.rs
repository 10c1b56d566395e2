//! `vmm map`: guest memory as one table.

use std::process::ExitCode;

use vmm::explain::{MemoryMap, When};
use vmm::next::process;
use vmm::{Error, VcpuId, Vm, VmConfig};

use super::run::tell_end;
use crate::cli::Map;
use crate::commands::{failed, has_colour, print_json, print_text};
use crate::ctrl_c;

/// Shows the map; the exit code says whether it could be made.
pub(super) fn map(arguments: Map) -> ExitCode {
    let Map { machine, at_stop, cpu, all, json } = arguments;
    let mapped = machine.into_quiet_config().and_then(|config| {
        let (vm, when) = machine_at(config, at_stop, cpu)?;
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

/// The machine before its first instruction, or where its guest stopped; then looked at through the vCPU `cpu`, or the one
/// that the run has ended on.
pub(super) fn machine_at(config: VmConfig, at_stop: bool, cpu: Option<u8>) -> vmm::Result<(Vm, When)> {
    let mut vm = Vm::build(config)?;
    if !at_stop {
        return Ok((vm, When::Start));
    }
    ctrl_c::stop_on_signal(vm.stop_handle())?;
    let report = vm.run()?;
    tell_end(&vm, &report);
    if let Some(number) = cpu {
        let is_there = VcpuId::new(number.into()).is_some_and(|vcpu| vm.look_at(vcpu));
        if !is_there {
            return Err(Error::NoSuchVcpu { number, count: vm.vcpu_count() });
        }
    }
    Ok((vm, When::Stop))
}
