//! `RegisterFile`: a vCPU's registers in gdb's order.
//!
//! gdb is told of the registers by `target.xml`, beside this file. The first three features have gdb's own names and
//! its own order; a fourth adds the control registers, which gdb shows by the names they have there.

use std::num::NonZeroUsize;

use gdbstub::arch::{Arch, RegId, Registers};
use kvm_bindings::{kvm_fpu, kvm_regs, kvm_sregs};
use shared_abi::exception::ExceptionFrame;

use super::register_table::{ControlRegister, PLACES, Place};
use crate::debug::CpuState;
use crate::error::Result;
use crate::vcpu::Vcpu;

/// The CPU that gdb is told of.
#[derive(Debug)]
pub(super) enum X86 {}

impl Arch for X86 {
    type Usize = u64;
    type Registers = RegisterFile;
    type BreakpointKind = usize;
    type RegId = RegisterId;

    fn target_description_xml() -> Option<&'static str> {
        Some(include_str!("target.xml"))
    }
}

/// All registers that gdb sees, as KVM has them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RegisterFile {
    general: kvm_regs,
    special: kvm_sregs,
    float: kvm_fpu,
}

/// A register's number: its position in `target.xml`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RegisterId(usize);

impl RegId for RegisterId {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let place = PLACES.get(id)?;
        Some((Self(id), NonZeroUsize::new(place.size())))
    }
}

impl RegisterFile {
    /// Reads all registers of `vcpu`.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm).
    pub(super) fn of(vcpu: &Vcpu) -> Result<Self> {
        Ok(Self { general: vcpu.registers()?, special: vcpu.special_registers()?, float: vcpu.fpu()? })
    }

    /// The same with the registers of what an exception interrupted.
    pub(super) fn interrupted(self, frame: &ExceptionFrame) -> Self {
        let now = CpuState { general: self.general, special: self.special };
        let CpuState { general, special } = CpuState::interrupted(frame, &now);
        Self { general, special, ..self }
    }

    /// Sets the registers of `vcpu` that differ from `before`. False when KVM refuses the values or keeps others: then
    /// `before` is set again.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm), when even that fails.
    pub(super) fn set(&self, vcpu: &Vcpu, before: &Self) -> Result<bool> {
        let kept = self.set_changed(vcpu, before).and_then(|()| Self::of(vcpu));
        if kept.is_ok_and(|kept| kept.shows_same_as(self)) {
            return Ok(true);
        }
        before.set_changed(vcpu, self)?;
        Ok(false)
    }

    fn set_changed(&self, vcpu: &Vcpu, before: &Self) -> Result<()> {
        if self.special != before.special {
            vcpu.set_special_registers(&self.special)?;
        }
        if self.general != before.general {
            vcpu.set_registers(&self.general)?;
        }
        if self.float != before.float {
            vcpu.set_fpu(&self.float)?;
        }
        Ok(())
    }

    /// Whether gdb would see no difference.
    fn shows_same_as(&self, other: &Self) -> bool {
        PLACES.into_iter().all(|place| self.bytes(place) == other.bytes(place))
    }

    /// Takes over all that gdb sees of `other`.
    pub(super) fn take_over(&mut self, other: &Self) {
        for place in PLACES {
            let bytes = other.bytes(place);
            self.set_bytes(place, &bytes);
        }
    }

    /// Copies a register into `buffer`, as far as it fits; says how many bytes it has.
    pub(super) fn read(&self, id: RegisterId, buffer: &mut [u8]) -> usize {
        let Some(&place) = PLACES.get(id.0) else { return 0 };
        for (to, from) in buffer.iter_mut().zip(self.bytes(place)) {
            *to = from;
        }
        place.size()
    }

    /// Sets a register. False when `bytes` are not as many as it has.
    pub(super) fn write(&mut self, id: RegisterId, bytes: &[u8]) -> bool {
        match PLACES.get(id.0) {
            Some(&place) if place.size() == bytes.len() => {
                self.set_bytes(place, bytes);
                true
            }
            _ => false,
        }
    }

    /// The register at `place`, lowest byte first.
    fn bytes(&self, place: Place) -> Vec<u8> {
        // The accessors give places to write to; a copy gives up nothing.
        let mut copy = *self;
        match place {
            Place::General(of) => of(&mut copy.general).to_le_bytes().to_vec(),
            Place::Flags => (copy.general.rflags as u32).to_le_bytes().to_vec(),
            Place::Selector(of) => u32::from(of(&mut copy.special).selector).to_le_bytes().to_vec(),
            Place::Stack(index) => copy.float.fpr.get(index).map_or(vec![0; 10], |st| st[..10].to_vec()),
            Place::Control(register) => copy.x87(register).to_le_bytes().to_vec(),
            Place::Xmm(index) => copy.float.xmm.get(index).map_or(vec![0; 16], |xmm| xmm.to_vec()),
            Place::Mxcsr => copy.float.mxcsr.to_le_bytes().to_vec(),
            Place::Special(of) => of(&mut copy.special).to_le_bytes().to_vec(),
        }
    }

    /// Sets the register at `place` to as many of `bytes` as it has.
    fn set_bytes(&mut self, place: Place, bytes: &[u8]) {
        let number = bytes.iter().take(8).rev().fold(0, |value, &byte| value << 8 | u64::from(byte));
        let into = |register: &mut [u8]| register.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        match place {
            Place::General(of) => *of(&mut self.general) = number,
            Place::Flags => self.general.rflags = self.general.rflags & !0xFFFF_FFFF | number & 0xFFFF_FFFF,
            Place::Selector(of) => of(&mut self.special).selector = number as u16,
            Place::Stack(index) => {
                if let Some(st) = self.float.fpr.get_mut(index) {
                    into(&mut st[..10]);
                }
            }
            Place::Control(register) => self.set_x87(register, number as u32),
            Place::Xmm(index) => {
                if let Some(xmm) = self.float.xmm.get_mut(index) {
                    into(xmm);
                }
            }
            Place::Mxcsr => self.float.mxcsr = number as u32,
            Place::Special(of) => *of(&mut self.special) = number,
        }
    }

    fn x87(&self, register: ControlRegister) -> u32 {
        let float = &self.float;
        match register {
            ControlRegister::Control => float.fcw.into(),
            ControlRegister::Status => float.fsw.into(),
            ControlRegister::Tags => full_tags(float.ftwx).into(),
            ControlRegister::InstructionUpper => (float.last_ip >> 32) as u32,
            ControlRegister::InstructionLower => float.last_ip as u32,
            ControlRegister::OperandUpper => (float.last_dp >> 32) as u32,
            ControlRegister::OperandLower => float.last_dp as u32,
            ControlRegister::Opcode => float.last_opcode.into(),
        }
    }

    fn set_x87(&mut self, register: ControlRegister, value: u32) {
        let float = &mut self.float;
        let upper = |old: u64| old & 0xFFFF_FFFF | u64::from(value) << 32;
        let lower = |old: u64| old & !0xFFFF_FFFF | u64::from(value);
        match register {
            ControlRegister::Control => float.fcw = value as u16,
            ControlRegister::Status => float.fsw = value as u16,
            ControlRegister::Tags => float.ftwx = short_tags(value as u16),
            ControlRegister::InstructionUpper => float.last_ip = upper(float.last_ip),
            ControlRegister::InstructionLower => float.last_ip = lower(float.last_ip),
            ControlRegister::OperandUpper => float.last_dp = upper(float.last_dp),
            ControlRegister::OperandLower => float.last_dp = lower(float.last_dp),
            ControlRegister::Opcode => float.last_opcode = value as u16,
        }
    }
}

/// The x87's tag word, two bits a register, from FXSAVE's, one bit a register (Intel SDM vol. 1, 10.5.1.1). What is not
/// empty is called valid: telling zero and special apart is up to whoever looks at the register.
fn full_tags(short: u8) -> u16 {
    (0..8).filter(|index| short & 1 << index == 0).fold(0, |tags, index| tags | 0b11 << (2 * index))
}

fn short_tags(full: u16) -> u8 {
    (0..8).filter(|index| full >> (2 * index) & 0b11 != 0b11).fold(0, |tags, index| tags | 1 << index)
}

impl Registers for RegisterFile {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.general.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        let bytes = PLACES.into_iter().flat_map(|place| self.bytes(place));
        bytes.for_each(|byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> std::result::Result<(), ()> {
        let mut rest = bytes;
        for place in PLACES {
            let (own, behind) = rest.split_at_checked(place.size()).ok_or(())?;
            self.set_bytes(place, own);
            rest = behind;
        }
        if rest.is_empty() { Ok(()) } else { Err(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_xml_names_the_registers_with_their_sizes() {
        let xml = X86::target_description_xml().expect("there is a description");
        let sizes: Vec<usize> = xml
            .lines()
            .filter_map(|line| line.split_once("<reg ")?.1.split_once("bitsize=\"")?.1.split_once('"'))
            .map(|(bits, _)| bits.parse::<usize>().expect("a number") / 8)
            .collect();
        assert_eq!(sizes, PLACES.map(Place::size));
    }

    #[test]
    fn what_is_written_is_read_back_register_by_register() {
        let mut file = RegisterFile::default();
        let bytes: Vec<u8> = (0..PLACES.iter().map(|place| place.size()).sum()).map(|i| i as u8).collect();
        file.gdb_deserialize(&bytes).expect("as many bytes as there are");
        for (id, place) in PLACES.into_iter().enumerate() {
            let mut own = vec![0; place.size()];
            assert_eq!(file.read(RegisterId(id), &mut own), place.size());
            let mut other = RegisterFile::default();
            assert!(other.write(RegisterId(id), &own), "{id}");
            assert!(!other.write(RegisterId(id), &own[1..]), "{id}");
            assert_eq!(other.bytes(place), file.bytes(place), "{id}");
        }
        assert!(file.gdb_deserialize(&bytes[1..]).is_err());
    }

    #[test]
    fn tags_keep_which_registers_are_empty() {
        for short in [0, 0x80, 0b0101_0011, 0xFF] {
            assert_eq!(short_tags(full_tags(short)), short);
        }
        assert_eq!(full_tags(0), 0xFFFF);
    }
}
