//! `Instruction`: what stands at an address, disassembled, with the memory that it uses.

use std::fmt;

use iced_x86::{
    Decoder, DecoderOptions, Formatter, InstructionInfoFactory, IntelFormatter, OpAccess, Register,
    UsedMemory,
};
use kvm_bindings::{kvm_regs, kvm_sregs};
use serde::{Serialize, Serializer};
use shared_abi::Gva;

use crate::debug::CpuState;
use crate::debug::exception::address;
use crate::guest_space::GuestSpace;
use crate::page_walk;

/// No instruction is longer (Intel SDM vol. 2A, 2.3.11).
pub const MAX_SIZE: usize = 15;

/// An instruction, disassembled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instruction {
    /// Where it stands.
    #[serde(serialize_with = "address")]
    pub gva: Gva,
    /// Its bytes.
    #[serde(serialize_with = "hex")]
    pub bytes: Vec<u8>,
    /// Its text, as Intel writes it.
    pub text: String,
    /// The memory it uses, beside itself.
    pub operands: Vec<Operand>,
}

/// Memory that an instruction uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Operand {
    /// Where it is, with the registers as they are.
    #[serde(serialize_with = "address")]
    pub gva: Gva,
    /// How many bytes; 0 when that depends on more than the instruction.
    pub size: u64,
    /// What is done with it.
    pub access: Access,
    /// Whether it is addressed through RSP or RBP.
    pub is_stack: bool,
}

/// What an instruction does with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It reads, then writes.
    Both,
}

impl Access {
    /// Whether it writes at all.
    #[must_use]
    pub fn writes(self) -> bool {
        self != Self::Read
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "written",
            Self::Both => "read and written",
        })
    }
}

impl Instruction {
    /// Disassembles the instruction that `bytes`, at `gva`, start with; `None` when it is none, or cut.
    #[must_use]
    pub fn decode(gva: Gva, bytes: &[u8], state: &CpuState) -> Option<Self> {
        let decoded = decode(gva, bytes, bits(&state.special))?;
        Some(Self::of(&decoded, bytes, state))
    }

    /// What `decoded`, which stands at its own address in `bytes`, says and uses.
    pub(super) fn of(decoded: &iced_x86::Instruction, bytes: &[u8], state: &CpuState) -> Self {
        Self {
            gva: Gva(decoded.ip()),
            bytes: bytes.get(..decoded.len()).unwrap_or(bytes).to_vec(),
            text: text(decoded),
            operands: operands(decoded, state),
        }
    }

    /// Disassembles what stands at RIP.
    #[must_use]
    pub fn at_rip(state: &CpuState, space: &GuestSpace<'_>) -> Option<Self> {
        let linear = linear_rip(state);
        let instruction = Self::decode(state.rip(), &bytes_at(space, linear), state)?;
        // Jumps in its text lead to offsets in the segment; where it stands itself is told for all.
        Some(Self { gva: linear, ..instruction })
    }
}

impl fmt::Display for Instruction {
    /// `48 c7 00 01 00 00 00  mov qword ptr [rax], 1`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {}", spaced(&self.bytes), self.text)
    }
}

/// Bytes as `0f 0b`.
#[must_use]
pub fn spaced(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&spaced(bytes))
}

/// The first bytes at `gva`, as many as an instruction can have, cut where no RAM is mapped any more.
#[must_use]
pub fn bytes_at(space: &GuestSpace<'_>, gva: Gva) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAX_SIZE);
    while bytes.len() < MAX_SIZE {
        let Some(at) = gva.checked_add(bytes.len() as u64) else { break };
        let Some(mapping) = space.translate(at) else { break };
        let page_left = (0x1000 - at.page_offset()) as usize;
        let mut part = vec![0; page_left.min(MAX_SIZE - bytes.len())];
        if space.memory().read(mapping.gpa, &mut part).is_err() {
            break;
        }
        bytes.append(&mut part);
    }
    bytes
}

/// Where the CPU fetches: outside 64-bit mode CS has a base.
#[must_use]
pub fn linear_rip(state: &CpuState) -> Gva {
    match bits(&state.special) {
        64 => state.rip(),
        _ => Gva(state.special.cs.base.wrapping_add(state.general.rip) & 0xFFFF_FFFF),
    }
}

/// How the CPU reads instructions: 64, 32 or 16 bits. Intel SDM vol. 3A, 3.4.5.
#[must_use]
pub fn bits(special: &kvm_sregs) -> u32 {
    const LONG_MODE_ACTIVE: u64 = 1 << 10;
    const PROTECTED: u64 = 1;
    match (special.efer & LONG_MODE_ACTIVE != 0 && special.cs.l != 0, special.cs.db != 0) {
        (true, _) => 64,
        (false, true) if special.cr0 & PROTECTED != 0 => 32,
        _ => 16,
    }
}

/// Decodes the instruction that `bytes`, at `gva`, start with; `None` when it is none, or cut.
pub(super) fn decode(gva: Gva, bytes: &[u8], bits: u32) -> Option<iced_x86::Instruction> {
    let mut decoder = Decoder::with_ip(bits, bytes, gva.0, DecoderOptions::NONE);
    let decoded = decoder.decode();
    (!decoded.is_invalid()).then_some(decoded)
}

/// Whether the instruction is cut: with more bytes it could be one.
pub(super) fn is_cut(bytes: &[u8], bits: u32) -> bool {
    let mut decoder = Decoder::with_ip(bits, bytes, 0, DecoderOptions::NONE);
    let _ = decoder.decode();
    bytes.len() < MAX_SIZE && decoder.last_error() == iced_x86::DecoderError::NoMoreBytes
}

fn text(decoded: &iced_x86::Instruction) -> String {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_space_after_operand_separator(true);
    options.set_memory_size_options(iced_x86::MemorySizeOptions::Always);
    let mut text = String::new();
    formatter.format(decoded, &mut text);
    text
}

fn operands(decoded: &iced_x86::Instruction, state: &CpuState) -> Vec<Operand> {
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(decoded);
    info.used_memory().iter().filter_map(|used| operand(used, decoded, state)).collect()
}

fn operand(used: &UsedMemory, decoded: &iced_x86::Instruction, state: &CpuState) -> Option<Operand> {
    let access = match used.access() {
        OpAccess::Read | OpAccess::CondRead => Access::Read,
        OpAccess::Write | OpAccess::CondWrite => Access::Write,
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => Access::Both,
        _ => return None,
    };
    if is_repeated(decoded) && state.general.rcx == 0 {
        // No repetition, no access.
        return None;
    }
    // A vector register as index means many addresses; KVM does not show those registers here.
    let gva = used.virtual_address(0, |register, _, _| value(register, state))?;
    // A bit's number may lead far from the operand (Intel SDM vol. 2A, BT).
    let size = used.memory_size().size() as u64;
    let is_stack = [used.base(), used.segment()]
        .iter()
        .any(|&register| matches!(register.full_register(), Register::RSP | Register::RBP | Register::SS));
    Some(Operand { gva: Gva(gva), size, access, is_stack })
}

fn is_repeated(decoded: &iced_x86::Instruction) -> bool {
    (decoded.has_rep_prefix() || decoded.has_repne_prefix()) && decoded.is_string_instruction()
}

/// The value of a register; of a segment register its base, as addresses need it.
pub(super) fn value(register: Register, state: &CpuState) -> Option<u64> {
    let CpuState { general, special } = state;
    if let Some(base) = segment_base(register, special) {
        return Some(base);
    }
    let whole = whole(register.full_register(), general)?;
    Some(match register.size() {
        1 if is_high_byte(register) => whole >> 8 & 0xFF,
        1 => whole & 0xFF,
        2 => whole & 0xFFFF,
        4 => whole & 0xFFFF_FFFF,
        _ => whole,
    })
}

fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

fn segment_base(register: Register, special: &kvm_sregs) -> Option<u64> {
    // In 64-bit mode only FS and GS have one (Intel SDM vol. 3A, 3.4.4).
    let flat = |base| if bits(special) == 64 { 0 } else { base };
    Some(match register {
        Register::FS => special.fs.base,
        Register::GS => special.gs.base,
        Register::CS => flat(special.cs.base),
        Register::DS => flat(special.ds.base),
        Register::ES => flat(special.es.base),
        Register::SS => flat(special.ss.base),
        _ => return None,
    })
}

fn whole(register: Register, general: &kvm_regs) -> Option<u64> {
    Some(match register {
        Register::RAX => general.rax,
        Register::RBX => general.rbx,
        Register::RCX => general.rcx,
        Register::RDX => general.rdx,
        Register::RSI => general.rsi,
        Register::RDI => general.rdi,
        Register::RSP => general.rsp,
        Register::RBP => general.rbp,
        Register::R8 => general.r8,
        Register::R9 => general.r9,
        Register::R10 => general.r10,
        Register::R11 => general.r11,
        Register::R12 => general.r12,
        Register::R13 => general.r13,
        Register::R14 => general.r14,
        Register::R15 => general.r15,
        Register::RIP => general.rip,
        _ => return None,
    })
}

/// Whether `gva` is canonical, as every address that a CPU uses in 64-bit mode.
pub(super) fn is_canonical(gva: Gva) -> bool {
    page_walk::is_canonical(gva)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> CpuState {
        let mut state = CpuState::default();
        state.special.efer = 1 << 10;
        state.special.cs.l = 1;
        state.general.rax = 0x1000;
        state.general.rsp = 0x8000;
        state.general.rbx = 0x20;
        state
    }

    #[test]
    fn an_operand_is_where_the_registers_lead() {
        let state = state();
        for (bytes, text, expected) in [
            (&[0x48, 0xC7, 0x00, 1, 0, 0, 0][..], "mov qword ptr [rax], 1", (0x1000, 8, Access::Write)),
            (
                &[0x48, 0x8B, 0x44, 0x58, 0x10],
                "mov rax, qword ptr [rax+rbx*2+0x10]",
                (0x1050, 8, Access::Read),
            ),
            (&[0x50], "push rax", (0x7FF8, 8, Access::Write)),
            (&[0x48, 0x8B, 0x05, 0x10, 0, 0, 0], "mov rax, qword ptr [0x5017]", (0x5017, 8, Access::Read)),
            (&[0x48, 0xFF, 0x00], "inc qword ptr [rax]", (0x1000, 8, Access::Both)),
        ] {
            let instruction = Instruction::decode(Gva(0x5000), bytes, &state).expect("it is one");
            assert_eq!(instruction.text, text);
            let operand = &instruction.operands[0];
            assert_eq!((operand.gva.0, operand.size, operand.access), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_instruction_is_none() {
        assert_eq!(Instruction::decode(Gva(0), &[0x06], &state()), None, "push es, not in 64-bit mode");
        assert_eq!(Instruction::decode(Gva(0), &[0x48, 0xC7], &state()), None, "cut");
        assert!(is_cut(&[0x48, 0xC7], 64) && !is_cut(&[0x06, 0], 64) && is_cut(&[], 64));
    }

    #[test]
    fn nothing_is_accessed_without_repetitions() {
        let rep_stosb = [0xF3, 0xAA];
        let mut state = state();
        assert_eq!(Instruction::decode(Gva(0), &rep_stosb, &state).expect("it is one").operands, []);
        state.general.rcx = 1;
        assert_eq!(Instruction::decode(Gva(0), &rep_stosb, &state).expect("it is one").operands.len(), 1);
    }
}
