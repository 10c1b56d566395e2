//! Software breakpoints: an instruction of one byte, planted in guest RAM, that stops the guest.
//!
//! It replaces the first byte of an instruction, and is kept by physical address, as two virtual ones may lead there
//! and each of them may have the breakpoint. Most often it is `int3`, which is made for this. Where a KVM gives `int3`
//! to the guest and tells nobody, it is `hlt`: that leaves the guest everywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gdbstub::target::TargetResult;
use gdbstub::target::ext::breakpoints::{
    Breakpoints, HwBreakpointOps, HwWatchpointOps, SwBreakpoint, SwBreakpointOps,
};
use shared_abi::{Gpa, Gva};

use super::target::Guest;
use crate::memory::GuestMemory;

/// The instruction that is planted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Trap {
    /// `int3` (Intel SDM vol. 2A, INT n). The guest is stopped at it.
    #[default]
    Int3 = 0xCC,
    /// `hlt` (Intel SDM vol. 2A, HLT). The guest is stopped behind it.
    Halt = 0xF4,
}

impl Trap {
    /// Its one byte.
    pub(super) fn byte(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int3 => "int3",
            Self::Halt => "hlt",
        })
    }
}

/// More than anybody sets by hand.
const MAX: usize = 4096;

/// The breakpoints that are in guest RAM.
#[derive(Debug, Default)]
pub(super) struct Planted {
    points: BTreeMap<Gpa, Point>,
    /// What is planted.
    trap: Trap,
}

#[derive(Debug)]
struct Point {
    /// The byte that belongs there.
    original: u8,
    /// The addresses that have the breakpoint.
    gvas: BTreeSet<Gva>,
}

impl Planted {
    /// Chooses what is planted, while nothing is.
    pub(super) fn choose(&mut self, trap: Trap) {
        if self.points.is_empty() {
            self.trap = trap;
        }
    }

    /// What is planted.
    pub(super) fn trap(&self) -> Trap {
        self.trap
    }

    /// Plants a breakpoint at `gva`, which is `gpa`. False when that is no RAM, or there are too many.
    pub(super) fn add(&mut self, memory: &GuestMemory, gva: Gva, gpa: Gpa) -> bool {
        if let Some(point) = self.points.get_mut(&gpa) {
            if point.gvas.len() < MAX {
                point.gvas.insert(gva);
            }
            return point.gvas.contains(&gva);
        }
        let mut original = [0];
        if self.points.len() >= MAX || memory.read(gpa, &mut original).is_err() {
            return false;
        }
        self.points.insert(gpa, Point { original: original[0], gvas: BTreeSet::from([gva]) });
        memory.write(gpa, &[self.trap.byte()]).is_ok()
    }

    /// Takes the breakpoint at `gva` away. False when there is none.
    pub(super) fn remove(&mut self, memory: &GuestMemory, gva: Gva) -> bool {
        let Some(gpa) = self.gpa_of(gva) else { return false };
        let Some(point) = self.points.get_mut(&gpa) else { return false };
        point.gvas.remove(&gva);
        if point.gvas.is_empty() {
            point.lift(memory, gpa, self.trap);
            self.points.remove(&gpa);
        }
        true
    }

    /// Takes all breakpoints away.
    pub(super) fn remove_all(&mut self, memory: &GuestMemory) {
        for (gpa, point) in std::mem::take(&mut self.points) {
            point.lift(memory, gpa, self.trap);
        }
    }

    /// Whether `gva` has a breakpoint.
    pub(super) fn is_at(&self, gva: Gva) -> bool {
        self.gpa_of(gva).is_some()
    }

    /// Puts the original instruction back at `gva`, if a breakpoint is there, until it is planted again.
    pub(super) fn lift(&self, memory: &GuestMemory, gva: Gva) {
        let gpa = self.gpa_of(gva);
        if let Some((gpa, point)) = gpa.and_then(|gpa| self.points.get_key_value(&gpa)) {
            point.lift(memory, *gpa, self.trap);
        }
    }

    /// Plants the breakpoint at `gva` again, after [`lift`](Self::lift); what the guest wrote there meanwhile is kept
    /// as the original.
    pub(super) fn plant_again(&mut self, memory: &GuestMemory, gva: Gva) {
        let (gpa, trap) = (self.gpa_of(gva), self.trap.byte());
        if let Some((gpa, point)) = gpa.and_then(|gpa| Some((gpa, self.points.get_mut(&gpa)?))) {
            let mut now = [point.original];
            if memory.read(gpa, &mut now).is_ok() && memory.write(gpa, &[trap]).is_ok() {
                point.original = now[0];
            }
        }
    }

    /// Puts the original bytes into `bytes`, which were read at `gpa`.
    pub(super) fn hide(&self, gpa: Gpa, bytes: &mut [u8]) {
        for (index, point) in self.within(gpa, bytes.len()) {
            if let Some(byte) = bytes.get_mut(index).filter(|byte| **byte == self.trap.byte()) {
                *byte = point.original;
            }
        }
    }

    /// Plants again what was overwritten by `bytes` at `gpa`.
    pub(super) fn written(&mut self, memory: &GuestMemory, gpa: Gpa, bytes: &[u8]) -> bool {
        let end = Gpa(gpa.0.saturating_add(bytes.len() as u64));
        let trap = self.trap.byte();
        self.points.range_mut(gpa..end).all(|(point_gpa, point)| {
            point.original = bytes.get((point_gpa.0 - gpa.0) as usize).copied().unwrap_or(point.original);
            memory.write(*point_gpa, &[trap]).is_ok()
        })
    }

    fn within(&self, gpa: Gpa, size: usize) -> impl Iterator<Item = (usize, &Point)> {
        let end = Gpa(gpa.0.saturating_add(size as u64));
        self.points.range(gpa..end).map(move |(own, point)| ((own.0 - gpa.0) as usize, point))
    }

    fn gpa_of(&self, gva: Gva) -> Option<Gpa> {
        self.points.iter().find(|(_, point)| point.gvas.contains(&gva)).map(|(gpa, _)| *gpa)
    }
}

impl Point {
    /// Puts the original byte back, unless the guest has written another.
    fn lift(&self, memory: &GuestMemory, gpa: Gpa, trap: Trap) {
        let mut now = [0];
        if memory.read(gpa, &mut now).is_ok() && now[0] == trap.byte() {
            let restored = memory.write(gpa, &[self.original]);
            debug_assert!(restored.is_ok(), "what was read is RAM");
        }
    }
}

impl Breakpoints for Guest<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Guest<'_> {
    fn add_sw_breakpoint(&mut self, gva: u64, _: usize) -> TargetResult<bool, Self> {
        let gva = Gva(gva);
        self.planted.choose(self.abilities().unwrap_or_default().trap);
        let Some(mapping) = self.space()?.translate(gva) else { return Ok(false) };
        Ok(self.planted.add(&self.memory, gva, mapping.gpa))
    }

    fn remove_sw_breakpoint(&mut self, gva: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.planted.remove(&self.memory, Gva(gva)))
    }
}
