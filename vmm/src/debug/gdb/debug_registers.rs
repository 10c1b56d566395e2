//! `DebugRegisters`: breakpoints and watchpoints that the CPU itself keeps, four of them.
//!
//! DR0 to DR3 hold addresses, DR7 says for each what stops there: the execution of an instruction, before it; or a
//! write or any access to 1, 2, 4 or 8 bytes, after it (Intel SDM vol. 3B, 18.2). KVM_SET_GUEST_DEBUG puts them in
//! place of the guest's own.

use gdbstub::target::TargetResult;
use gdbstub::target::ext::breakpoints::{HwBreakpoint, HwWatchpoint, WatchKind};
use kvm_bindings::kvm_guest_debug_arch;
use shared_abi::Gva;

use super::abilities::Ability;
use super::target::Guest;

/// The four addresses and what stops there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DebugRegisters {
    slots: [Option<Slot>; 4],
}

/// One address and what stops there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) gva: Gva,
    pub(super) event: Event,
}

/// What stops the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The instruction there is about to be executed.
    Execution,
    /// So many bytes were written there; or, if `reads` is set, read.
    Access { size: u8, reads: bool },
}

impl Slot {
    /// The bits of DR7 for the slot `index`.
    fn control(self, index: usize) -> u64 {
        let (kind, length) = match self.event {
            Event::Execution => (0b00, 0b00),
            Event::Access { size, reads } => (if reads { 0b11 } else { 0b01 }, length_bits(size)),
        };
        GLOBAL_ENABLE << (2 * index) | (kind | length << 2) << (16 + 4 * index)
    }
}

/// DR7.G0; those of the other slots are 2 bits apart.
const GLOBAL_ENABLE: u64 = 1 << 1;
/// DR7.GE and bit 10, which is always 1.
const ALWAYS: u64 = 1 << 9 | 1 << 10;

/// DR7.LEN.
fn length_bits(size: u8) -> u64 {
    match size {
        1 => 0b00,
        2 => 0b01,
        8 => 0b10,
        _ => 0b11,
    }
}

impl DebugRegisters {
    /// Takes the slots that `wanted` need. False when there are not so many left.
    pub(super) fn add(&mut self, wanted: &[Slot]) -> bool {
        let free = self.slots.iter().filter(|slot| slot.is_none()).count();
        let new: Vec<Slot> =
            wanted.iter().copied().filter(|slot| !self.slots.contains(&Some(*slot))).collect();
        if new.len() > free {
            return false;
        }
        let places = self.slots.iter_mut().filter(|slot| slot.is_none());
        places.zip(new).for_each(|(place, slot)| *place = Some(slot));
        true
    }

    /// Frees the slots of `wanted`. False when none of them is there.
    pub(super) fn remove(&mut self, wanted: &[Slot]) -> bool {
        let mut any = false;
        for place in &mut self.slots {
            if place.is_some_and(|slot| wanted.contains(&slot)) {
                *place = None;
                any = true;
            }
        }
        any
    }

    /// Whether execution stops at `gva`.
    pub(super) fn stops_at(&self, gva: Gva) -> bool {
        self.slots.contains(&Some(Slot { gva, event: Event::Execution }))
    }

    /// The registers' values; execution does not stop at `except`.
    pub(super) fn values(&self, except: Option<Gva>) -> kvm_guest_debug_arch {
        let mut values = kvm_guest_debug_arch::default();
        let [address0, address1, address2, address3, .., control] = &mut values.debugreg;
        *control = ALWAYS;
        let addresses = [address0, address1, address2, address3];
        for (index, (address, slot)) in addresses.into_iter().zip(self.slots).enumerate() {
            let is_excepted = |slot: &Slot| slot.event == Event::Execution && Some(slot.gva) == except;
            if let Some(slot) = slot.filter(|slot| !is_excepted(slot)) {
                *address = slot.gva.0;
                *control |= slot.control(index);
            }
        }
        values
    }

    /// The slot that stopped the guest, as DR6 says.
    pub(super) fn hit(&self, dr6: u64) -> Option<Slot> {
        self.slots.iter().enumerate().find(|(index, _)| dr6 & 1 << index != 0).and_then(|(_, slot)| *slot)
    }
}

/// Cuts a range into what debug registers can watch: 1, 2, 4 or 8 bytes, aligned to their size.
fn pieces(gva: Gva, size: u64, reads: bool) -> Option<Vec<Slot>> {
    let mut pieces = Vec::new();
    let (mut next, mut left) = (gva, size);
    while left > 0 {
        let fits = |piece: &u64| next.0.is_multiple_of(*piece) && *piece <= left;
        let piece = [8, 4, 2, 1].into_iter().find(fits)?;
        pieces.push(Slot { gva: next, event: Event::Access { size: piece as u8, reads } });
        if pieces.len() > 4 {
            return None;
        }
        (next, left) = (next.checked_add(piece)?, left - piece);
    }
    Some(pieces)
}

impl HwBreakpoint for Guest<'_> {
    fn add_hw_breakpoint(&mut self, gva: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.has(Ability::HardwareBreakpoints)
            && self.hardware.add(&[Slot { gva: Gva(gva), event: Event::Execution }]))
    }

    fn remove_hw_breakpoint(&mut self, gva: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.hardware.remove(&[Slot { gva: Gva(gva), event: Event::Execution }]))
    }
}

impl HwWatchpoint for Guest<'_> {
    fn add_hw_watchpoint(&mut self, gva: u64, size: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        if kind == WatchKind::Read {
            self.refuse("x86 CPUs cannot watch reads alone; `awatch` stops at reads and writes");
            return Ok(false);
        }
        let Some(slots) = pieces(Gva(gva), size, kind == WatchKind::ReadWrite) else { return Ok(false) };
        Ok(self.has(Ability::Watchpoints) && self.hardware.add(&slots))
    }

    fn remove_hw_watchpoint(&mut self, gva: u64, size: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let slots = pieces(Gva(gva), size, kind == WatchKind::ReadWrite);
        Ok(slots.is_some_and(|slots| self.hardware.remove(&slots)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dr7_is_as_the_manual_draws_it() {
        let mut registers = DebugRegisters::default();
        let write = Slot { gva: Gva(0x2000), event: Event::Access { size: 8, reads: false } };
        assert!(registers.add(&[Slot { gva: Gva(0x1000), event: Event::Execution }, write]));
        let values = registers.values(None).debugreg;
        assert_eq!((values[0], values[1]), (0x1000, 0x2000));
        // Slot 1: G1 is bit 3, R/W1 = 01 at bit 20, LEN1 = 10 at bit 22.
        assert_eq!(values[7], 0x600 | 1 << 1 | 1 << 3 | 0b1001 << 20);
        assert_eq!(registers.values(Some(Gva(0x1000))).debugreg[7], 0x600 | 1 << 3 | 0b1001 << 20);
        assert_eq!(registers.hit(0b10), Some(write));
    }

    #[test]
    fn four_is_all_there_are_and_the_same_one_twice_is_one() {
        let mut registers = DebugRegisters::default();
        let slot = |gva| Slot { gva: Gva(gva), event: Event::Execution };
        for gva in [1, 2, 3, 3, 4] {
            assert!(registers.add(&[slot(gva)]), "{gva}");
        }
        assert!(!registers.add(&[slot(5)]));
        assert!(registers.remove(&[slot(2)]) && !registers.remove(&[slot(2)]));
        assert!(registers.add(&[slot(5)]));
    }

    #[test]
    fn a_range_is_cut_at_its_alignment() {
        let sizes = |gva, size| {
            let pieces = pieces(Gva(gva), size, false)?;
            Some(pieces.iter().map(|slot| slot.gva.0).collect::<Vec<_>>())
        };
        assert_eq!(sizes(0x1000, 8), Some(vec![0x1000]));
        assert_eq!(sizes(0x1001, 7), Some(vec![0x1001, 0x1002, 0x1004]));
        assert_eq!(sizes(0x1000, 33), None);
        assert_eq!(sizes(u64::MAX, 1), None);
        assert_eq!(sizes(0, u64::MAX), None);
    }
}
