//! Counts exits by kind.

use serde::Serialize;

use crate::exit::Exit;
use crate::observe::Observer;
use crate::vcpu::Place;

/// How often the guest exited, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExitCounts {
    /// Reads from ports.
    pub pio_in: u64,
    /// Writes to ports, other than hypercalls.
    pub pio_out: u64,
    /// Hypercalls.
    pub hypercall: u64,
    /// Reads where no RAM is.
    pub mmio_read: u64,
    /// Writes where no RAM is.
    pub mmio_write: u64,
    /// HLT.
    pub halt: u64,
    /// Signals, which are no doing of the guest.
    pub interrupted: u64,
    /// Ends of interrupts that the I/O APIC must know of.
    pub ioapic_eoi: u64,
    /// Everything that ends a guest badly.
    pub fatal: u64,
    /// Stops that a debugger asked for: no doing of the guest, and not among all exits.
    pub debug: u64,
}

impl ExitCounts {
    /// No exits.
    pub const NONE: Self = Self {
        pio_in: 0,
        pio_out: 0,
        hypercall: 0,
        mmio_read: 0,
        mmio_write: 0,
        halt: 0,
        interrupted: 0,
        ioapic_eoi: 0,
        fatal: 0,
        debug: 0,
    };

    /// All exits that happen without a debugger, too.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.pio_in
            + self.pio_out
            + self.hypercall
            + self.mmio_read
            + self.mmio_write
            + self.halt
            + self.interrupted
            + self.ioapic_eoi
            + self.fatal
    }
}

impl Observer for ExitCounts {
    fn on_exit(&mut self, exit: &Exit<'_>, _: Option<Place>) {
        let counter = match exit {
            Exit::PioIn { .. } => &mut self.pio_in,
            Exit::PioOut { .. } => &mut self.pio_out,
            Exit::Hypercall => &mut self.hypercall,
            Exit::MmioRead { .. } => &mut self.mmio_read,
            Exit::MmioWrite { .. } => &mut self.mmio_write,
            Exit::Halt => &mut self.halt,
            Exit::Interrupted => &mut self.interrupted,
            Exit::IoapicEoi { .. } => &mut self.ioapic_eoi,
            Exit::Debug(_) => &mut self.debug,
            Exit::TripleFault
            | Exit::EmulationFailure(_)
            | Exit::InternalError { .. }
            | Exit::EntryFailed { .. }
            | Exit::RunFailed(_)
            | Exit::Unknown(_) => &mut self.fatal,
        };
        *counter += 1;
    }

    fn counts(&self) -> &ExitCounts {
        self
    }
}
