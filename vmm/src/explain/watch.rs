//! `Watch`: an observer that keeps what an explanation of a run needs: the exits that printed, and the last one.
//!
//! An exit printed when the console has more bytes behind the answer than before it. That holds for every way a guest
//! has, a byte at a port or a line by a hypercall, and nothing must know which ways there are.

use serde::Serialize;
use shared_abi::{Gva, ports};

use super::words::Hex;
use crate::console::Printed;
use crate::cpus::VcpuId;
use crate::exit::Exit;
use crate::next::Next;
use crate::observe::{ExitCounts, Observer};
use crate::vcpu::{Place, RunMapping};

/// What an exit was, as far as an explanation needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeenExit {
    /// Which exit of the run it was, from 1.
    pub number: u64,
    /// How the guest left.
    pub way: Way,
    /// The data's first bytes, at most 16; none for a hypercall, whose data are registers.
    pub data: Vec<u8>,
    /// Where those bytes lie in the VMM's address space: in the mapping that starts with `kvm_run`.
    pub data_hva: Option<Hex>,
    /// How far behind the start of `kvm_run`: `io.data_offset` for port I/O.
    pub data_offset: Option<Hex>,
    /// RIP, at the instruction or behind it.
    pub rip: Option<Hex>,
}

/// How a guest left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Way {
    /// IN or OUT: KVM_EXIT_IO.
    Port {
        /// The port.
        port: u16,
        /// OUT: the guest writes.
        is_out: bool,
        /// Bytes of an access.
        size: u8,
        /// Accesses.
        count: u64,
    },
    /// A hypercall: an OUT of 4 bytes to the doorbell, KVM_EXIT_IO.
    Hypercall {
        /// The doorbell's port.
        port: u16,
    },
    /// An access where no RAM is: KVM_EXIT_MMIO.
    Mmio {
        /// The address.
        gpa: Hex,
        /// The guest writes.
        is_write: bool,
        /// Bytes.
        size: u64,
    },
    /// Anything else, by its name.
    Other {
        /// As [`Exit`] has it.
        name: String,
    },
}

/// Bytes that are kept of an exit's data.
const MAX_DATA: usize = 16;

/// Watches a run.
#[derive(Debug)]
pub(super) struct Watch {
    counts: ExitCounts,
    printed: Printed,
    /// Bytes that are among those which some exit has printed, or were printed before it.
    counted: u64,
    /// Whose turn it is.
    vcpu: VcpuId,
    turns: Vec<Turn>,
    /// The first exit that printed.
    pub(super) first_print: Option<SeenExit>,
    /// How many did.
    pub(super) prints: u64,
    /// How many bytes they printed.
    pub(super) printed_bytes: u64,
}

/// A vCPU, and the exit of it that is being answered or was answered last.
#[derive(Debug)]
struct Turn {
    mapping: RunMapping,
    /// What was printed when it left.
    before: u64,
    last: Option<SeenExit>,
}

impl Watch {
    /// Somebody who watches the vCPUs that have these mappings.
    pub(super) fn new(printed: Printed, mappings: impl Iterator<Item = RunMapping>) -> Self {
        let before = printed.bytes();
        Self {
            counts: ExitCounts::default(),
            printed,
            counted: before,
            vcpu: VcpuId::FIRST,
            turns: mappings.map(|mapping| Turn { mapping, before, last: None }).collect(),
            first_print: None,
            prints: 0,
            printed_bytes: 0,
        }
    }

    /// The last exit of a vCPU.
    pub(super) fn last(&self, vcpu: VcpuId) -> Option<&SeenExit> {
        self.turns.get(vcpu.index())?.last.as_ref()
    }

    fn turn(&mut self) -> &mut Turn {
        self.turns.get_mut(self.vcpu.index()).expect("every vCPU of the machine is watched")
    }

    fn seen(&mut self, exit: &Exit<'_>, place: Option<Place>) -> SeenExit {
        let (way, data): (Way, &[u8]) = match exit {
            Exit::PioIn { port, size, data } => (port_way(*port, false, *size, data.len()), data),
            Exit::PioOut { port, size, data } => (port_way(*port, true, *size, data.len()), data),
            Exit::Hypercall => (Way::Hypercall { port: ports::HYPERCALL }, &[]),
            Exit::MmioRead { gpa, data } => (mmio_way(gpa.0, false, data.len()), data),
            Exit::MmioWrite { gpa, data } => (mmio_way(gpa.0, true, data.len()), data),
            other => (Way::Other { name: name(other).to_owned() }, &[]),
        };
        let start = self.turn().mapping.hva;
        let data_hva = (!data.is_empty()).then_some(data.as_ptr() as u64);
        SeenExit {
            number: self.counts.total(),
            way,
            data: data.iter().copied().take(MAX_DATA).collect(),
            data_hva: data_hva.map(Hex),
            data_offset: data_hva.and_then(|hva| hva.checked_sub(start)).map(Hex),
            rip: place.map(|Place { rip: Gva(rip), .. }| Hex(rip)),
        }
    }
}

impl Observer for Watch {
    fn on_vcpu(&mut self, vcpu: VcpuId) {
        self.vcpu = vcpu;
    }

    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.counts.on_exit(exit, place);
        let (before, seen) = (self.printed.bytes(), self.seen(exit, place));
        let turn = self.turn();
        (turn.before, turn.last) = (before, Some(seen));
    }

    fn on_answer(&mut self, _: &Next) {
        let now = self.printed.bytes();
        // What another vCPU has printed meanwhile is counted once.
        let bytes = now - self.turn().before.max(self.counted).min(now);
        if bytes > 0 {
            self.counted = now;
            self.prints += 1;
            self.printed_bytes += bytes;
            if self.first_print.is_none() {
                self.first_print = self.turn().last.clone();
            }
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

fn port_way(port: u16, is_out: bool, size: u8, length: usize) -> Way {
    Way::Port { port, is_out, size, count: (length / usize::from(size).max(1)) as u64 }
}

fn mmio_way(gpa: u64, is_write: bool, length: usize) -> Way {
    Way::Mmio { gpa: Hex(gpa), is_write, size: length as u64 }
}

/// The exit's name in `Exit`: what stands before its fields.
fn name(exit: &Exit<'_>) -> String {
    let shown = format!("{exit:?}");
    shown.split([' ', '(', '{']).next().unwrap_or_default().to_owned()
}
