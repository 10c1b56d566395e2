//! The commands that explain a machine, as they can be typed.

use clap::Args;
use vmm::Vm;
use vmm::explain::{Peek, PeekRequest, Space, parse_address};

use super::Machine;

/// Looks at guest memory after the run.
#[derive(Args, Debug, Default)]
pub(crate) struct Peeks {
    /// Show guest memory after the run, by physical address; may stand several times. At most 64K.
    #[arg(long = "peek", value_name = "GPA:SIZE")]
    physical: Vec<PeekRequest>,

    /// The same by virtual address, through the page tables that the guest has then.
    #[arg(long = "peek-gva", value_name = "GVA:SIZE")]
    virtual_: Vec<PeekRequest>,
}

impl Peeks {
    /// Looks at everything that was asked for.
    pub(crate) fn look(&self, vm: &Vm) -> vmm::Result<Vec<Peek>> {
        let physical = self.physical.iter().map(|&request| Peek::of(vm, Space::Physical, request));
        let virtual_ = self.virtual_.iter().map(|&request| Peek::of(vm, Space::Virtual, request));
        physical.chain(virtual_).collect()
    }
}

#[derive(Args, Debug)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) machine: Machine,

    #[command(flatten)]
    pub(crate) peeks: Peeks,

    /// Print the answers as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = MAP_EXAMPLES)]
pub(crate) struct Map {
    #[command(flatten)]
    pub(crate) machine: Machine,

    /// Run the guest and show its memory as it left it; else as it is before the first instruction.
    #[arg(long)]
    pub(crate) at_stop: bool,

    /// Look through the page tables of this vCPU; else of the one that the run has ended on.
    #[arg(long, value_name = "NUMBER", requires = "at_stop")]
    pub(crate) cpu: Option<u8>,

    /// Show every page table, also when there are many.
    #[arg(long)]
    pub(crate) all: bool,

    /// Print the map as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = WALK_EXAMPLES, mut_arg("image", |image| image.index(1)))]
#[command(mut_arg("arguments", |arguments| arguments.index(3)))]
pub(crate) struct Walk {
    #[command(flatten)]
    pub(crate) machine: Machine,

    /// The addresses: numbers such as 0x100000, or names of functions such as main.
    #[arg(required = true, index = 2, value_name = "GVA")]
    pub(crate) addresses: Vec<Address>,

    /// Run the guest and walk the tables that it left; else those before the first instruction.
    #[arg(long)]
    pub(crate) at_stop: bool,

    /// Look through the page tables of this vCPU; else of the one that the run has ended on.
    #[arg(long, value_name = "NUMBER", requires = "at_stop")]
    pub(crate) cpu: Option<u8>,

    /// Print the walks as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// An address as people type it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A number.
    Number(u64),
    /// The name of a function.
    Symbol(String),
}

impl std::str::FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match parse_address(text) {
            Some(number) => Ok(Self::Number(number)),
            None if text.starts_with(|c: char| c.is_ascii_digit()) || text.is_empty() => Err(format!(
                "`{text}` is no address: write a number, with 0x if it is hexadecimal, or a function's name"
            )),
            None => Ok(Self::Symbol(text.to_owned())),
        }
    }
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  vmm explain kernel.elf
  vmm explain --memory 64G --page-size 4k --json kernel.elf
  vmm explain --timeout 500ms --peek 0x1000:64 kernel.elf -- first second

What the guest prints goes to stderr. The exit code is the guest's, as with `vmm run`.";

const MAP_EXAMPLES: &str = "\
Examples:
  vmm map kernel.elf
  vmm map --at-stop --all kernel.elf
  vmm map --json kernel.elf

With --at-stop, what the guest prints goes to stderr. The exit code is 0 when the map could be made, however the guest
ended and whatever is wrong with its mappings.";

const WALK_EXAMPLES: &str = "\
Examples:
  vmm walk kernel.elf 0x100000
  vmm walk kernel.elf main 0xffff800000000000
  vmm walk --at-stop --json kernel.elf 0xc0000000 -- first second

With --at-stop, what the guest prints goes to stderr. The exit code is 0 when the walks could be made, wherever they
ended.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_or_names() {
        for (text, address) in [
            ("0x10_0000", Address::Number(0x10_0000)),
            ("4096", Address::Number(4096)),
            ("main", Address::Symbol("main".into())),
            ("boot::start", Address::Symbol("boot::start".into())),
        ] {
            assert_eq!(text.parse(), Ok(address));
        }
        for wrong in ["", "0x", "12g", "0x1ffffffffffffffff"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
