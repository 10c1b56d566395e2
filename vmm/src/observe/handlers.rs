//! `Handlers`: who answers at which port, address and call, by name.

use std::sync::Arc;

use shared_abi::Gpa;
use shared_abi::hypercall::Hypercall;

use crate::machine::Machine;
use crate::memory::GuestMemory;
use crate::observe::entry::Target;

/// Who answers in a machine, by name.
#[derive(Clone, Debug)]
pub struct Handlers {
    ports: Vec<(u16, &'static str)>,
    /// First byte, size in bytes, name.
    addresses: Vec<(Gpa, u64, &'static str)>,
    memory: Arc<GuestMemory>,
}

impl Handlers {
    /// The devices of `machine`.
    pub(crate) fn of(machine: &Machine) -> Self {
        Self {
            ports: machine.pio.names().collect(),
            addresses: machine.mmio.names().collect(),
            memory: Arc::clone(&machine.memory),
        }
    }

    /// Who answers when a guest turns to `target`; `None` where nobody does.
    #[must_use]
    pub fn name(&self, target: Target) -> Option<&'static str> {
        match target {
            Target::Nothing => None,
            Target::Port(port) => self.ports.iter().find(|(own, _)| *own == port).map(|(_, name)| *name),
            Target::Memory(gpa) => self.at(gpa),
            Target::Call(number) => Hypercall::name_of(number),
        }
    }

    fn at(&self, gpa: Gpa) -> Option<&'static str> {
        let is_in = |start: Gpa, size: u64| gpa.0.checked_sub(start.0).is_some_and(|offset| offset < size);
        let device = self.addresses.iter().find(|(start, size, _)| is_in(*start, *size));
        // An exit for RAM is KVM being told of it.
        let ram = || self.memory.check(gpa, 1).is_ok().then_some("RAM");
        device.map(|(.., name)| *name).or_else(ram)
    }
}
