//! The I/O APIC: 24 lines in, messages to local APICs out.
//!
//! A guest sees two registers and looks through them at all others, as through a window:
//!
//! ```text
//! 0x00  IOREGSEL  which register the window shows       0x00        ID in bits 24 to 27
//! 0x10  IOWIN     the window                            0x01        version; 23 = the last pin
//! 0x40  EOI       ends the interrupts of a vector       0x10 + 2n   redirection entry of pin n: low half,
//!                                                       0x11 + 2n   high half
//! ```
//!
//! An edge-triggered pin sends once when its line is asserted; while the pin is masked an edge is lost. A level-triggered
//! pin sends for as long as its line is asserted, but one interrupt at a time: the local APIC tells when the guest has
//! ended it, and the pin looks at its line again (Intel 82093AA data sheet, 3.2.4). Lines have no polarity here:
//! whoever holds one asserts it, and bit 13 is kept and means nothing.
//!
//! Guest side: `guest-kernel/src/cpu/ioapic.rs`. Who carries the messages: `vmm/src/interrupts.rs`.

mod redirection;

use std::fmt;

use serde::{Deserialize, Serialize};
use shared_abi::interrupts::PINS;

use crate::error::Result;
pub use redirection::Message;
use redirection::Redirection;

/// Carries messages to local APICs.
pub trait Messages: Send + fmt::Debug {
    /// Says what `pin` will send from now on.
    ///
    /// # Errors
    /// What the host could not do.
    fn route(&mut self, pin: usize, message: Message) -> Result<()>;

    /// Sends what was last said for `pin`.
    ///
    /// # Errors
    /// What the host could not do.
    fn send(&mut self, pin: usize) -> Result<()>;
}

/// The controller.
#[derive(Debug)]
pub struct Ioapic {
    state: IoapicState,
    messages: Box<dyn Messages>,
}

/// What the controller holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoapicState {
    id: u32,
    /// IOREGSEL.
    selected: u8,
    pins: [Pin; PINS],
}

/// A pin: its line, and what becomes of a signal there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    is_asserted: bool,
    redirection: Redirection,
    /// What it was last said to send. A masked pin keeps it: an interrupt that it has sent may not have ended.
    routed: Option<Message>,
}

/// Offsets of what the guest sees.
const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const EOI: u64 = 0x40;

/// Numbers of registers behind the window.
const ID: u8 = 0x00;
const VERSION: u8 = 0x01;
const ARBITRATION: u8 = 0x02;
const REDIRECTIONS: u8 = 0x10;

/// The first version with a register to end interrupts.
const WITH_EOI: u32 = 0x20;
const ID_MASK: u32 = 0x0F00_0000;

impl Ioapic {
    /// As after reset: all pins are masked, no line is asserted.
    #[must_use]
    pub fn new(messages: Box<dyn Messages>) -> Self {
        let pin = Pin { is_asserted: false, redirection: Redirection::RESET, routed: None };
        Self { state: IoapicState { id: 0, selected: 0, pins: [pin; PINS] }, messages }
    }

    /// What it holds now.
    #[must_use]
    pub fn state(&self) -> &IoapicState {
        &self.state
    }

    /// Lets it hold what another one held. Nothing is sent: what was sent is with the local APICs.
    ///
    /// # Errors
    /// As the carrier of messages has them.
    pub fn set_state(&mut self, state: &IoapicState) -> Result<()> {
        let before = std::mem::replace(&mut self.state, state.clone());
        for (index, (pin, before)) in state.pins.iter().zip(&before.pins).enumerate() {
            if let Some(message) = pin.routed.filter(|_| pin.routed != before.routed) {
                self.messages.route(index, message)?;
            }
        }
        Ok(())
    }

    /// What the guest reads at `offset`; nothing is there but IOREGSEL and the window.
    #[must_use]
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            IOREGSEL => self.state.selected.into(),
            IOWIN => self.read_register(self.state.selected),
            _ => 0,
        }
    }

    fn read_register(&self, register: u8) -> u32 {
        match register {
            ID | ARBITRATION => self.state.id,
            VERSION => (PINS as u32 - 1) << 16 | WITH_EOI,
            _ => half_of(register).map_or(0, |(pin, is_high)| {
                self.state.pins.get(pin).map_or(0, |pin| pin.redirection.half(is_high))
            }),
        }
    }

    /// Takes what the guest writes at `offset`. What is no register ignores it.
    ///
    /// # Errors
    /// As the carrier of messages has them.
    pub fn write(&mut self, offset: u64, value: u32) -> Result<()> {
        match offset {
            IOREGSEL => self.state.selected = value as u8,
            IOWIN => return self.write_register(self.state.selected, value),
            EOI => return self.end(value as u8),
            _ => {}
        }
        Ok(())
    }

    fn write_register(&mut self, register: u8, value: u32) -> Result<()> {
        if register == ID {
            self.state.id = value & ID_MASK;
        }
        let Some((index, is_high)) = half_of(register) else { return Ok(()) };
        let Some(pin) = self.state.pins.get_mut(index) else { return Ok(()) };
        pin.redirection = pin.redirection.with_half(is_high, value);
        let message = pin.redirection.message();
        if !pin.redirection.is_masked() && pin.routed != Some(message) {
            pin.routed = Some(message);
            self.messages.route(index, message)?;
        }
        self.look_at(index)
    }

    /// Asserts the line of `pin` or takes it back.
    ///
    /// # Errors
    /// As the carrier of messages has them.
    pub fn set_line(&mut self, pin: usize, is_asserted: bool) -> Result<()> {
        let Some(own) = self.state.pins.get_mut(pin) else { return Ok(()) };
        let is_edge = is_asserted && !own.is_asserted;
        own.is_asserted = is_asserted;
        if own.redirection.is_level() {
            return self.look_at(pin);
        }
        if is_edge && !own.redirection.is_masked() { self.messages.send(pin) } else { Ok(()) }
    }

    /// The guest has ended an interrupt with this vector: whose line is still asserted sends again.
    ///
    /// # Errors
    /// As the carrier of messages has them.
    pub fn end(&mut self, vector: u8) -> Result<()> {
        for index in 0..PINS {
            let Some(pin) = self.state.pins.get_mut(index) else { break };
            if pin.redirection.is_served() && pin.redirection.vector() == vector {
                pin.redirection = pin.redirection.ended();
                self.look_at(index)?;
            }
        }
        Ok(())
    }

    /// Sends for a level-triggered pin, if its line is asserted and no interrupt of it is being served.
    fn look_at(&mut self, index: usize) -> Result<()> {
        let Some(pin) = self.state.pins.get_mut(index) else { return Ok(()) };
        let entry = pin.redirection;
        if !pin.is_asserted || entry.is_masked() || !entry.is_level() || entry.is_served() {
            return Ok(());
        }
        pin.redirection = entry.sent();
        self.messages.send(index)
    }
}

/// The pin whose redirection entry a register is a half of, and whether it is the high one.
fn half_of(register: u8) -> Option<(usize, bool)> {
    let place = usize::from(register.checked_sub(REDIRECTIONS)?);
    (place / 2 < PINS).then_some((place / 2, place % 2 == 1))
}

#[cfg(test)]
mod tests;
