//! `vmm walk`: how addresses are translated.

use std::process::ExitCode;

use shared_abi::Gva;
use vmm::Vm;
use vmm::explain::{Walk, When};
use vmm::next::process;

use super::map::machine_at;
use crate::cli::{self, Address};
use crate::commands::{failed, print_json, print_text};
use crate::say::say;

/// Shows the walks; the exit code says whether they could be made.
pub(super) fn walk(arguments: cli::Walk) -> ExitCode {
    let cli::Walk { machine, addresses, at_stop, cpu, json } = arguments;
    let built = machine.into_quiet_config().and_then(|config| machine_at(config, at_stop, cpu));
    let (vm, when) = match built {
        Ok(built) => built,
        Err(error) => return failed(&error),
    };
    let addresses = match addresses.iter().map(|address| number(&vm, address)).collect::<Result<Vec<_>, _>>()
    {
        Ok(addresses) => addresses,
        Err(unknown) => {
            say!("vmm: {unknown}");
            return ExitCode::from(process::USAGE);
        }
    };
    match walks(&vm, when, &addresses) {
        Ok(walks) => {
            if json {
                print_json(&walks);
            } else {
                let walks: Vec<String> = walks.iter().map(ToString::to_string).collect();
                print_text(&walks.join("\n\n"));
            }
            ExitCode::from(process::SUCCESS)
        }
        Err(error) => failed(&error),
    }
}

fn walks(vm: &Vm, when: When, addresses: &[Gva]) -> vmm::Result<Vec<Walk>> {
    addresses.iter().map(|gva| Walk::of(vm, when, *gva)).collect()
}

/// The address that a name stands for, or why it stands for none.
fn number(vm: &Vm, address: &Address) -> Result<Gva, String> {
    match address {
        Address::Number(number) => Ok(Gva(*number)),
        Address::Symbol(name) => {
            let symbols = vm.symbols();
            symbols.address_of(name).ok_or_else(|| {
                let why = match symbols.detail() {
                    vmm::debug::Detail::Addresses(why) => format!(": {why}"),
                    _ => String::new(),
                };
                format!("the image has no function `{name}`{why}")
            })
        }
    }
}
