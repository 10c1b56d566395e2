//! `Mode`: which mode a CPU is in, by its registers, and how that mode names places: `1000:0bca`, `8:0x10bca`.
//!
//! Everybody who reads an address of a guest must know how that address was meant. In 64-bit mode it is a number. Before
//! that it is two: a segment and an offset in it, and the CPU adds the segment's base. Intel SDM vol. 3A, 2.2 and 3.2.

use std::fmt;

use kvm_bindings::{kvm_segment, kvm_sregs};
use x86_64::registers::control::{Cr0Flags, EferFlags};
use x86_64::registers::rflags::RFlags;

use crate::debug::CpuState;

/// A mode of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 16-bit code without protection.
    Real,
    /// 16-bit code in ring 3 under protected mode.
    Virtual8086,
    /// Protected mode, at 16-bit code.
    Protected16,
    /// Protected mode, at 32-bit code; with paging or without.
    Protected32,
    /// Long mode, at 16-bit or 32-bit code.
    Compatibility,
    /// Long mode, at 64-bit code.
    Long,
}

impl Mode {
    /// The mode of a CPU with these registers.
    #[must_use]
    pub fn of(state: &CpuState) -> Self {
        let CpuState { general, special } = state;
        let is_protected = special.cr0 & Cr0Flags::PROTECTED_MODE_ENABLE.bits() != 0;
        let is_long = special.efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
        match (is_protected, is_long) {
            (false, _) => Self::Real,
            (true, true) if special.cs.l != 0 => Self::Long,
            (true, true) => Self::Compatibility,
            (true, false) if general.rflags & RFlags::VIRTUAL_8086_MODE.bits() != 0 => Self::Virtual8086,
            (true, false) if special.cs.db == 0 => Self::Protected16,
            (true, false) => Self::Protected32,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Real => "real mode",
            Self::Virtual8086 => "virtual-8086 mode",
            Self::Protected16 => "16-bit protected mode",
            Self::Protected32 => "32-bit protected mode",
            Self::Compatibility => "compatibility mode",
            Self::Long => "64-bit mode",
        }
    }

    /// Whether segments are 64 KiB at sixteen times their number, with nothing to load from a table.
    #[must_use]
    pub const fn is_8086(self) -> bool {
        matches!(self, Self::Real | Self::Virtual8086)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a CPU executes, as its mode names it, and the address behind that: `1000:0bca, linear 0x10bca`.
#[must_use]
pub fn place(state: &CpuState) -> String {
    let (rip, cs) = (state.general.rip, &state.special.cs);
    match Mode::of(state) {
        Mode::Long => format!("{rip:#x}"),
        mode => {
            let linear = cs.base.wrapping_add(rip) & 0xFFFF_FFFF;
            if mode.is_8086() {
                format!("{:04x}:{rip:04x}, linear {linear:#x}", cs.selector)
            } else {
                format!("{:#x}:{rip:#x}, linear {linear:#x}", cs.selector)
            }
        }
    }
}

/// What the segment registers hold, decoded: a line for each value, with the names of those that have it.
#[must_use]
pub fn segments(special: &kvm_sregs) -> Vec<String> {
    let kvm_sregs { cs, ss, ds, es, fs, gs, .. } = special;
    let registers = [("CS", cs), ("SS", ss), ("DS", ds), ("ES", es), ("FS", fs), ("GS", gs)];
    let told = registers.map(|(name, segment)| (name, segment_words(segment)));
    let groups = told.chunk_by(|(_, one), (_, next)| one == next);
    let line = |group: &[(&str, String)]| {
        let names: Vec<&str> = group.iter().map(|(name, _)| *name).collect();
        let words = group.first().map(|(_, words)| words.as_str()).unwrap_or_default();
        format!("{} {words}", names.join(", "))
    };
    groups.map(line).collect()
}

/// A segment register in words: `0x8: base 0x0, limit 0xffffffff, 32-bit code, readable, ring 0`.
fn segment_words(segment: &kvm_segment) -> String {
    let &kvm_segment { selector, base, limit, type_, dpl, .. } = segment;
    if segment.unusable != 0 || segment.present == 0 {
        return format!("{selector:#x}: no segment");
    }
    let bits = match (segment.l, segment.db) {
        (0, 0) => "16-bit",
        (0, _) => "32-bit",
        _ => "64-bit",
    };
    let (is_code, has_right, special) = (type_ & 8 != 0, type_ & 2 != 0, type_ & 4 != 0);
    let kind = match (is_code, has_right, special) {
        (true, true, false) => format!("{bits} code, readable"),
        (true, false, false) => format!("{bits} code"),
        (true, _, true) => format!("{bits} code, conforming"),
        (false, true, false) => "data, writable".to_owned(),
        (false, false, false) => "data, read-only".to_owned(),
        (false, _, true) => "data, expanding down".to_owned(),
    };
    format!("{selector:#x}: base {base:#x}, limit {limit:#x}, {kind}, ring {dpl}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(cr0: u64, efer: u64, rflags: u64, cs: kvm_segment) -> CpuState {
        let mut state = CpuState::default();
        (state.special.cr0, state.special.efer, state.special.cs) = (cr0, efer, cs);
        (state.general.rflags, state.general.rip) = (rflags, 0xBCA);
        state
    }

    #[test]
    fn every_mode_is_told_by_its_registers_and_names_places_its_way() {
        let cs = |selector, base, db, l| kvm_segment { selector, base, db, l, ..kvm_segment::default() };
        for (mode, state, place) in [
            (Mode::Real, state(0x10, 0, 2, cs(0x1000, 0x1_0000, 0, 0)), "1000:0bca, linear 0x10bca"),
            (
                Mode::Virtual8086,
                state(0x11, 0, 0x2_0002, cs(0x7C0, 0x7C00, 0, 0)),
                "07c0:0bca, linear 0x87ca",
            ),
            (Mode::Protected16, state(0x11, 0, 2, cs(0x8, 0x1_0000, 0, 0)), "0x8:0xbca, linear 0x10bca"),
            (Mode::Protected32, state(0x8000_0011, 0, 2, cs(0x8, 0, 1, 0)), "0x8:0xbca, linear 0xbca"),
            (
                Mode::Compatibility,
                state(0x8000_0011, 0x500, 2, cs(0x18, 0, 1, 0)),
                "0x18:0xbca, linear 0xbca",
            ),
            (Mode::Long, state(0x8000_0011, 0x500, 2, cs(0x8, 0, 0, 1)), "0xbca"),
        ] {
            assert_eq!((Mode::of(&state), super::place(&state).as_str()), (mode, place));
        }
    }

    #[test]
    fn segments_are_told_by_what_they_allow() {
        let code =
            kvm_segment { selector: 8, limit: !0, type_: 11, present: 1, db: 1, ..kvm_segment::default() };
        assert_eq!(segment_words(&code), "0x8: base 0x0, limit 0xffffffff, 32-bit code, readable, ring 0");
        let stack = kvm_segment { type_: 7, dpl: 3, db: 0, base: 0x7000, limit: 0xFFF, ..code };
        assert_eq!(segment_words(&stack), "0x8: base 0x7000, limit 0xfff, data, expanding down, ring 3");
        let special =
            kvm_sregs { cs: code, ss: stack, ds: code, es: code, fs: code, gs: code, ..kvm_sregs::default() };
        let lines = segments(&special);
        assert!(lines.len() == 3 && lines[2].starts_with("DS, ES, FS, GS 0x8: base 0x0"), "{lines:?}");
        assert_eq!(segment_words(&kvm_segment { unusable: 1, ..code }), "0x8: no segment");
    }
}
