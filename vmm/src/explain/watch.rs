//! `Watch`: an observer that keeps what an explanation of a run needs: the exits that printed, and the last one.
//!
//! An exit printed when the console has more bytes behind the answer than before it. That holds for every way a guest
//! has, a byte at a port or a line by a hypercall, and nothing must know which ways there are.

use serde::Serialize;
use shared_abi::{Gva, ports};

use super::words::Hex;
use crate::console::Printed;
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
    mapping: RunMapping,
    before: u64,
    last: Option<SeenExit>,
    /// The first exit that printed.
    pub(super) first_print: Option<SeenExit>,
    /// How many did.
    pub(super) prints: u64,
    /// How many bytes they printed.
    pub(super) printed_bytes: u64,
}

impl Watch {
    pub(super) fn new(printed: Printed, mapping: RunMapping) -> Self {
        Self {
            counts: ExitCounts::default(),
            before: printed.bytes(),
            printed,
            mapping,
            last: None,
            first_print: None,
            prints: 0,
            printed_bytes: 0,
        }
    }

    /// The last exit of the run.
    pub(super) fn last(&self) -> Option<&SeenExit> {
        self.last.as_ref()
    }

    fn seen(&self, exit: &Exit<'_>, place: Option<Place>) -> SeenExit {
        let (way, data): (Way, &[u8]) = match exit {
            Exit::PioIn { port, size, data } => (port_way(*port, false, *size, data.len()), data),
            Exit::PioOut { port, size, data } => (port_way(*port, true, *size, data.len()), data),
            Exit::Hypercall => (Way::Hypercall { port: ports::HYPERCALL }, &[]),
            Exit::MmioRead { gpa, data } => (mmio_way(gpa.0, false, data.len()), data),
            Exit::MmioWrite { gpa, data } => (mmio_way(gpa.0, true, data.len()), data),
            other => (Way::Other { name: name(other).to_owned() }, &[]),
        };
        let data_hva = (!data.is_empty()).then_some(data.as_ptr() as u64);
        SeenExit {
            number: self.counts.total(),
            way,
            data: data.iter().copied().take(MAX_DATA).collect(),
            data_hva: data_hva.map(Hex),
            data_offset: data_hva.and_then(|hva| hva.checked_sub(self.mapping.hva)).map(Hex),
            rip: place.map(|Place { rip: Gva(rip), .. }| Hex(rip)),
        }
    }
}

impl Observer for Watch {
    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.counts.on_exit(exit, place);
        self.before = self.printed.bytes();
        self.last = Some(self.seen(exit, place));
    }

    fn on_answer(&mut self, _: &Next) {
        let bytes = self.printed.bytes() - self.before;
        if bytes > 0 {
            self.prints += 1;
            self.printed_bytes += bytes;
            if self.first_print.is_none() {
                self.first_print.clone_from(&self.last);
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
