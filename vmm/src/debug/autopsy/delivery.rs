//! Delivery: how the CPU in 64-bit mode calls the handler of an exception, step by step, and which step fails.
//!
//! ```text
//! 1 IDTR        is gate `vector` within the limit?                          else #GP(gate)
//! 2 gate        read it; an interrupt or trap gate? present?                else #GP(gate), #NP(gate)
//! 3 code        the gate's selector, in GDT or LDT: 64-bit code, present    else #GP(selector), #NP(selector)
//! 4 stack       IST and inner rings: RSP from the TSS; canonical?           else #TS(TR), #SS(0)
//! 5 push        SS, RSP, RFLAGS, CS, RIP, and the error code, if any        else #PF
//! 6 handler     RIP from the gate: canonical?                               else #GP(0)
//! ```
//!
//! Intel SDM vol. 3A, 6.12.1, 6.14; vol. 2A, INT n (operation).

use shared_abi::Gva;

use super::Raised;
use super::access::{Kind, Scene};
use super::descriptor::{Descriptor, Selector};
use super::older;
use crate::debug::exception::{Exception, mnemonic, vector};
use crate::debug::instruction::is_canonical;

/// Who wants a handler called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The CPU itself.
    Event,
    /// An instruction: `int n`, `int3`. Only then the gate's DPL counts.
    Instruction,
}

/// A gate of the IDT: 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    const INTERRUPT: u8 = 0b1110;
    const TRAP: u8 = 0b1111;

    fn handler(self) -> Gva {
        Gva((self.low & 0xFFFF) | (self.low >> 48 & 0xFFFF) << 16 | self.high << 32)
    }

    fn selector(self) -> Selector {
        Selector((self.low >> 16 & 0xFFFF) as u16)
    }

    fn ist(self) -> u8 {
        (self.low >> 32 & 7) as u8
    }

    /// Type, DPL and P stand where every descriptor has them.
    fn descriptor(self) -> Descriptor {
        Descriptor(self.low)
    }
}

/// Size of a gate in 64-bit mode.
const GATE_SIZE: u64 = 16;
/// Where a TSS has RSP0, and IST1. Intel SDM vol. 3A, 8.7.
const TSS_RSP0: u64 = 4;
const TSS_IST1: u64 = 36;
/// SS, RSP, RFLAGS, CS and RIP.
const FRAME_SIZE: u64 = 40;

/// Where the handler of `vector` starts, when the IDT can be read and has one.
pub(super) fn handler_of(scene: &Scene<'_>, vector: u8) -> Option<Gva> {
    if !scene.is_long() {
        return older::handler_of(scene, vector);
    }
    let gate = read_gate(scene, vector, Source::Event).ok()?;
    gate.descriptor().is_present().then(|| gate.handler())
}

/// Calls the handler of `exception`: where it starts, or what is raised instead and why.
pub(super) fn deliver(scene: &Scene<'_>, exception: &Exception, source: Source) -> Result<Gva, Raised> {
    if !scene.is_long() {
        return older::deliver(scene, exception, source);
    }
    let gate = read_gate(scene, exception.vector, source)?;
    check_gate(scene, gate, exception.vector, source)?;
    let code = scene.check_handler_code(gate.selector())?;
    let ring = if code.is_conforming() { scene.cpl() } else { code.dpl() };
    let (stack, name) = stack(scene, gate, ring)?;
    let size = FRAME_SIZE + if exception.error.is_some() { 8 } else { 0 };
    let bottom = Gva((stack.0 & !0xF).wrapping_sub(size));
    scene.check_as(bottom, size, Kind::Write, ring == 3).map_err(|raised| {
        let raised = if raised.exception.vector == vector::GP {
            Raised::new(Exception::with_error(vector::SS, 1), raised.why)
        } else {
            raised
        };
        raised.during(&format!("pushing the frame to {name} at {bottom}"))
    })?;
    if !is_canonical(gate.handler()) {
        let why = format!("the handler {} is not canonical", gate.handler());
        return Err(Raised::new(Exception::with_error(vector::GP, external(source)), why));
    }
    Ok(gate.handler())
}

/// Bit 0 of the error code: not set for what an instruction asked for.
fn external(source: Source) -> u32 {
    u32::from(source == Source::Event)
}

/// The error code that names a gate.
fn gate_error(vector: u8, source: Source) -> u32 {
    u32::from(vector) << 3 | 1 << 1 | external(source)
}

fn read_gate(scene: &Scene<'_>, vector_number: u8, source: Source) -> Result<Gate, Raised> {
    let idt = &scene.state.special.idt;
    let offset = u64::from(vector_number) * GATE_SIZE;
    if offset + GATE_SIZE - 1 > idt.limit.into() {
        let why = format!("IDT limit {:#x}, no gate for vector {vector_number}", idt.limit);
        return Err(Raised::new(Exception::with_error(vector::GP, gate_error(vector_number, source)), why));
    }
    let gva = Gva(idt.base.wrapping_add(offset));
    let reading =
        |raised: Raised| raised.during(&format!("reading gate {vector_number} of the IDT at {gva}"));
    let low = scene.read_word(gva).map_err(reading)?;
    let high = scene.read_word(Gva(gva.0.wrapping_add(8))).map_err(reading)?;
    Ok(Gate { low, high })
}

fn check_gate(scene: &Scene<'_>, gate: Gate, vector_number: u8, source: Source) -> Result<(), Raised> {
    let error = gate_error(vector_number, source);
    let descriptor = gate.descriptor();
    let is_gate = descriptor.is_system(Gate::INTERRUPT) || descriptor.is_system(Gate::TRAP);
    if !is_gate {
        let what = if gate.low == 0 && gate.high == 0 { "is empty" } else { "is no interrupt or trap gate" };
        let why = format!("gate {vector_number} ({}) of the IDT {what}", mnemonic(vector_number));
        return Err(Raised::new(Exception::with_error(vector::GP, error), why));
    }
    if source == Source::Instruction && descriptor.dpl() < scene.cpl() {
        let why = format!("gate {vector_number} of the IDT is not for ring {}", scene.cpl());
        return Err(Raised::new(Exception::with_error(vector::GP, error), why));
    }
    if !descriptor.is_present() {
        let why = format!("gate {vector_number} ({}) of the IDT is not present", mnemonic(vector_number));
        return Err(Raised::new(Exception::with_error(vector::NP, error), why));
    }
    Ok(())
}

/// The stack that the handler gets, and what to call it.
fn stack(scene: &Scene<'_>, gate: Gate, ring: u8) -> Result<(Gva, String), Raised> {
    let (offset, name) = match gate.ist() {
        0 if ring >= scene.cpl() => return Ok((Gva(scene.state.general.rsp), "the stack".to_owned())),
        0 => (TSS_RSP0 + u64::from(ring) * 8, format!("the stack of ring {ring} (RSP{ring} of the TSS)")),
        ist => (TSS_IST1 + u64::from(ist - 1) * 8, format!("the stack IST{ist} of the TSS")),
    };
    let tr = &scene.state.special.tr;
    if offset + 7 > tr.limit.into() || tr.unusable != 0 {
        let why = format!("{name} is beyond the limit {:#x} of the TSS", tr.limit);
        let error = Selector(tr.selector).error(true);
        return Err(Raised::new(Exception::with_error(vector::TS, error), why));
    }
    let gva = Gva(tr.base.wrapping_add(offset));
    let word = scene.read_word(gva).map_err(|raised| raised.during(&format!("reading the TSS at {gva}")))?;
    if !is_canonical(Gva(word)) {
        let why = format!("{name} is {word:#x}, which is not canonical");
        return Err(Raised::new(Exception::with_error(vector::SS, 1), why));
    }
    Ok((Gva(word), name))
}
