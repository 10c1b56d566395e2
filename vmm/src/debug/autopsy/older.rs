//! The autopsy of guests that were not at 64-bit code: real mode, protected mode, virtual-8086 and compatibility mode.
//!
//! What is added by segments comes before what pages say: an offset beyond the limit, a write to code, a selector without
//! a descriptor. And exceptions arrive by other tables:
//!
//! ```text
//! real mode       IVT: 4 bytes a vector, offset and segment. Nothing but the limit of IDTR can be wrong (vol. 3B, 21.1.4)
//! protected mode  IDT: 8 bytes a gate, for handlers of 16 or 32 bits (vol. 3A, 6.11 and 6.12)
//! long mode       IDT: 16 bytes a gate; who is interrupted at 32-bit code still gets a 64-bit handler (delivery.rs)
//! ```
//!
//! Task gates are told and not followed.

#[cfg(test)]
mod tests;

use iced_x86::{Code, InstructionInfoFactory, Mnemonic, OpAccess, Register};
use kvm_bindings::kvm_segment;
use shared_abi::Gva;

use super::Raised;
use super::access::{Kind, Scene};
use super::delivery::Source;
use super::descriptor::{Descriptor, Selector};
use super::first::{division, general_protection, invalid_opcode, privilege, software_interrupt};
use crate::debug::exception::{Exception, mnemonic, vector};
use crate::debug::instruction::{self, Instruction};
use crate::debug::mode::Mode;

/// What the instruction at CS:IP raises; when it raises nothing, what may have happened instead.
pub(super) fn first(scene: &Scene<'_>) -> Result<String, (Raised, Source)> {
    let by_cpu = |raised| (raised, Source::Event);
    let decoded = fetch(scene).map_err(by_cpu)?;
    let Some(decoded) = decoded else {
        return Ok("the instruction at CS:IP lies outside RAM".to_owned());
    };
    let text = Instruction::of(&decoded, &[], scene.state);
    software_interrupt(&decoded)?;
    if matches!(decoded.mnemonic(), Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2) {
        return Err(by_cpu(invalid_opcode("the instruction that is invalid on purpose")));
    }
    if scene.mode() != Mode::Real {
        privilege(scene, &decoded).map_err(by_cpu)?;
    }
    operands(scene, &decoded).map_err(by_cpu)?;
    if !scene.mode().is_8086() {
        selectors(scene, &decoded).map_err(by_cpu)?;
    }
    division(scene, &decoded, &text).map_err(by_cpu)?;
    Ok(format!(
        "the instruction at CS:IP, `{}`, raises no exception that can be seen from outside",
        text.text
    ))
}

/// The instruction at CS:IP; `None` when KVM cannot read it from RAM.
fn fetch(scene: &Scene<'_>) -> Result<Option<iced_x86::Instruction>, Raised> {
    let (rip, cs) = (scene.state.general.rip, &scene.state.special.cs);
    if rip > u64::from(cs.limit) {
        let why = format!("IP {rip:#x} is beyond the limit {:#x} of CS", cs.limit);
        return Err(scene.selector_fault(vector::GP, why));
    }
    let linear = instruction::linear_rip(scene.state);
    scene.check(linear, 1, Kind::Fetch)?;
    let bytes = instruction::bytes_at(&scene.state.space(scene.memory), linear);
    let bits = instruction::bits(&scene.state.special);
    match instruction::decode(Gva(rip), &bytes, bits) {
        Some(decoded) => Ok(Some(decoded)),
        None if instruction::is_cut(&bytes, bits) => Ok(None),
        None => Err(invalid_opcode(format!(
            "the bytes {} are no instruction",
            instruction::spaced(bytes.get(..4).unwrap_or(&bytes))
        ))),
    }
}

/// The memory that the instruction uses: segment by segment, then page by page.
fn operands(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    let mut factory = InstructionInfoFactory::new();
    for used in factory.info(decoded).used_memory() {
        let writes = match used.access() {
            OpAccess::Read | OpAccess::CondRead => false,
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite => true,
            _ => continue,
        };
        let linear = used.virtual_address(0, |register, _, _| instruction::value(register, scene.state));
        let (Some(linear), Some(segment)) = (linear, segment(scene, used.segment())) else { continue };
        let size = used.memory_size().size().max(1) as u64;
        let offset = linear.wrapping_sub(segment.base) & 0xFFFF_FFFF;
        check_segment(scene, used.segment(), segment, offset, size, writes)?;
        let kind = if writes { Kind::Write } else { Kind::Read };
        scene.check(Gva(linear & 0xFFFF_FFFF), size, kind)?;
    }
    Ok(())
}

fn segment<'a>(scene: &Scene<'a>, register: Register) -> Option<&'a kvm_segment> {
    let special = &scene.state.special;
    Some(match register {
        Register::CS => &special.cs,
        Register::SS => &special.ss,
        Register::DS => &special.ds,
        Register::ES => &special.es,
        Register::FS => &special.fs,
        Register::GS => &special.gs,
        _ => return None,
    })
}

/// Checks `size` bytes from `offset` against what the segment allows. Intel SDM vol. 3A, 5.3 and 5.5; AMD and Intel check
/// no rights in real mode, and limits in every mode.
fn check_segment(
    scene: &Scene<'_>,
    register: Register,
    segment: &kvm_segment,
    offset: u64,
    size: u64,
    writes: bool,
) -> Result<(), Raised> {
    let name = format!("{register:?}");
    let fault = if register == Register::SS { vector::SS } else { vector::GP };
    let refuse = |why: String| Err(scene.selector_fault(fault, why));
    let has_rights = !scene.mode().is_8086();
    let (is_code, right, expands_down) =
        (segment.type_ & 8 != 0, segment.type_ & 2 != 0, segment.type_ & 12 == 4);
    if has_rights && (segment.unusable != 0 || segment.present == 0) {
        return refuse(format!("{name} holds no segment"));
    }
    if has_rights && writes && (is_code || !right) {
        return refuse(format!("{name} holds a segment that cannot be written"));
    }
    if has_rights && !writes && is_code && !right {
        return refuse(format!("{name} holds code that cannot be read"));
    }
    let (limit, last) = (u64::from(segment.limit), offset + (size - 1));
    let top = if segment.db != 0 { 0xFFFF_FFFF } else { 0xFFFF };
    let fits = if expands_down && has_rights { offset > limit && last <= top } else { last <= limit };
    if fits {
        return Ok(());
    }
    refuse(format!("offset {offset:#x} ({size} bytes) is beyond the limit {limit:#x} of {name}"))
}

/// Selectors that the instruction loads: into a data segment or the stack's, or by a far jump or call into CS.
fn selectors(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    match decoded.mnemonic() {
        Mnemonic::Mov if decoded.op0_register().is_segment_register() => {
            let Some(value) = super::first::operand_value(scene, decoded, 1) else { return Ok(()) };
            let selector = Selector((value & 0xFFFF) as u16);
            match decoded.op0_register() {
                Register::CS => Err(invalid_opcode("CS cannot be loaded so")),
                Register::SS => scene.check_stack_segment_of_32_bits(selector),
                _ => scene.check_data_segment(selector),
            }
        }
        Mnemonic::Jmp | Mnemonic::Call
            if matches!(
                decoded.code(),
                Code::Jmp_ptr1616 | Code::Jmp_ptr1632 | Code::Call_ptr1616 | Code::Call_ptr1632
            ) =>
        {
            let selector = Selector(decoded.far_branch_selector());
            let descriptor = scene.check_far_target(selector)?;
            let offset = match decoded.code() {
                Code::Jmp_ptr1616 | Code::Call_ptr1616 => u64::from(decoded.far_branch16()),
                _ => u64::from(decoded.far_branch32()),
            };
            check_offset(descriptor, offset, "the target")
        }
        _ => Ok(()),
    }
}

/// Checks that an offset lies within the limit of a code segment.
fn check_offset(descriptor: Descriptor, offset: u64, what: &str) -> Result<(), Raised> {
    let limit = descriptor.limit();
    if descriptor.is_64_bit_code() || offset <= limit {
        return Ok(());
    }
    Err(general_protection(format!("{what} {offset:#x} is beyond the limit {limit:#x} of its segment")))
}

/// Calls the handler of `exception`, outside long mode: its linear address, or what is raised instead and why.
pub(super) fn deliver(scene: &Scene<'_>, exception: &Exception, source: Source) -> Result<Gva, Raised> {
    if scene.mode() == Mode::Real {
        return deliver_real(scene, exception.vector);
    }
    let gate = read_gate(scene, exception.vector, source)?;
    check_gate(scene, gate, exception.vector, source)?;
    let selector = Selector((gate.0 >> 16 & 0xFFFF) as u16);
    let code = scene.check_handler_code_of_32_bits(selector)?;
    scene.check_handler_is_present(selector, code)?;
    let offset = gate.0 & 0xFFFF | if is_wide(gate) { gate.0 >> 48 << 16 } else { 0 };
    check_offset(code, offset, "the handler")?;
    let ring = if code.is_conforming() { scene.cpl() } else { code.dpl() };
    check_push(scene, exception, gate, ring)?;
    Ok(Gva(code.base().wrapping_add(offset) & 0xFFFF_FFFF))
}

/// The handler of `vector` by the tables of the mode, when they can be read and have one.
pub(super) fn handler_of(scene: &Scene<'_>, vector: u8) -> Option<Gva> {
    if scene.mode() == Mode::Real {
        return deliver_real(scene, vector).ok();
    }
    let gate = read_gate(scene, vector, Source::Event).ok()?;
    let code = scene.descriptor(Selector((gate.0 >> 16 & 0xFFFF) as u16), true).ok()?;
    let offset = gate.0 & 0xFFFF | if is_wide(gate) { gate.0 >> 48 << 16 } else { 0 };
    gate.is_present().then(|| Gva(code.base().wrapping_add(offset) & 0xFFFF_FFFF))
}

/// By the interrupt vector table: a far pointer, and three words on the stack.
fn deliver_real(scene: &Scene<'_>, vector: u8) -> Result<Gva, Raised> {
    const ENTRY: u64 = 4;
    const FRAME: u64 = 6;
    let (idt, ss) = (&scene.state.special.idt, &scene.state.special.ss);
    let offset = u64::from(vector) * ENTRY;
    if offset + ENTRY - 1 > idt.limit.into() {
        let why = format!("IDTR limit {:#x}, no entry for vector {vector} in the vector table", idt.limit);
        return Err(Raised::new(Exception::plain(vector::GP), why));
    }
    let bottom = scene.state.general.rsp.wrapping_sub(FRAME) & 0xFFFF;
    if bottom + FRAME - 1 > ss.limit.into() {
        let why = format!("SP {bottom:#x} leaves no room for IP, CS and FLAGS");
        return Err(Raised::new(Exception::plain(vector::SS), why));
    }
    let pointer = scene.peek(Gva(idt.base.wrapping_add(offset)));
    Ok(Gva((pointer >> 16 & 0xFFFF) * 16 + (pointer & 0xFFFF)))
}

/// Whether a gate is of 32 bits: bit 3 of its type.
fn is_wide(gate: Descriptor) -> bool {
    gate.kind() & 0b1000 != 0
}

fn gate_error(vector: u8, source: Source) -> u32 {
    u32::from(vector) << 3 | 1 << 1 | u32::from(source == Source::Event)
}

fn read_gate(scene: &Scene<'_>, number: u8, source: Source) -> Result<Descriptor, Raised> {
    const GATE: u64 = 8;
    let idt = &scene.state.special.idt;
    let offset = u64::from(number) * GATE;
    if offset + GATE - 1 > idt.limit.into() {
        let why = format!("IDT limit {:#x}, no gate for vector {number}", idt.limit);
        return Err(Raised::new(Exception::with_error(vector::GP, gate_error(number, source)), why));
    }
    let gva = Gva(idt.base.wrapping_add(offset));
    let reading = |raised: Raised| raised.during(&format!("reading gate {number} of the IDT at {gva}"));
    Ok(Descriptor(scene.read_word(gva).map_err(reading)?))
}

fn check_gate(scene: &Scene<'_>, gate: Descriptor, number: u8, source: Source) -> Result<(), Raised> {
    let error = gate_error(number, source);
    let refuse = |vector, what: &str| {
        let why = format!("gate {number} ({}) of the IDT {what}", mnemonic(number));
        Err(Raised::new(Exception::with_error(vector, error), why))
    };
    let is_gate = [0b0110, 0b0111, 0b1110, 0b1111].iter().any(|&kind| gate.is_system(kind));
    if gate.is_system(TASK_GATE) {
        return refuse(vector::GP, "is a task gate, which is not followed here");
    }
    if !is_gate {
        return refuse(vector::GP, if gate.0 == 0 { "is empty" } else { "is no interrupt or trap gate" });
    }
    if source == Source::Instruction && gate.dpl() < scene.cpl() {
        return refuse(vector::GP, &format!("is not for ring {}", scene.cpl()));
    }
    if !gate.is_present() {
        return refuse(vector::NP, "is not present");
    }
    Ok(())
}

/// A gate that leads to a task (Intel SDM vol. 3A, 6.14).
const TASK_GATE: u8 = 0b0101;

/// Checks that the frame can be pushed: EFLAGS, CS, EIP, the error code, and what another ring or virtual-8086 mode adds.
fn check_push(scene: &Scene<'_>, exception: &Exception, gate: Descriptor, ring: u8) -> Result<(), Raised> {
    let (state, word) = (scene.state, if is_wide(gate) { 4 } else { 2 });
    let is_from_8086 = scene.mode() == Mode::Virtual8086;
    let changes_ring = ring < scene.cpl();
    let words = 3
        + u64::from(exception.error.is_some())
        + if changes_ring { 2 } else { 0 }
        + if is_from_8086 { 4 } else { 0 };
    let (base, top, limit, name) = if changes_ring {
        let (stack, esp) = inner_stack(scene, ring)?;
        (stack.base(), esp, stack.limit(), format!("the stack of ring {ring}"))
    } else {
        let ss = &state.special.ss;
        (ss.base, state.general.rsp, u64::from(ss.limit), "the stack".to_owned())
    };
    let size = words * word;
    let bottom = top.wrapping_sub(size) & 0xFFFF_FFFF;
    if bottom + (size - 1) > limit {
        let why = format!("{name} at {top:#x} leaves no room for a frame of {size} bytes, limit {limit:#x}");
        return Err(Raised::new(Exception::with_error(vector::SS, u32::from(!changes_ring)), why));
    }
    let linear = Gva(base.wrapping_add(bottom) & 0xFFFF_FFFF);
    scene
        .check_as(linear, size, Kind::Write, ring == 3)
        .map_err(|raised| raised.during(&format!("pushing the frame to {name} at {linear}")))
}

/// SS and ESP of an inner ring, from a TSS of 32 bits (Intel SDM vol. 3A, figure 8-2).
fn inner_stack(scene: &Scene<'_>, ring: u8) -> Result<(Descriptor, u64), Raised> {
    let tr = &scene.state.special.tr;
    let offset = 4 + u64::from(ring) * 8;
    let error = Selector(tr.selector).error(true);
    if tr.unusable != 0 || offset + 5 > tr.limit.into() {
        let why = format!("the stack of ring {ring} is beyond the limit {:#x} of the TSS", tr.limit);
        return Err(Raised::new(Exception::with_error(vector::TS, error), why));
    }
    let gva = Gva(tr.base.wrapping_add(offset));
    let word = scene.read_word(gva).map_err(|raised| raised.during(&format!("reading the TSS at {gva}")))?;
    let selector = Selector((word >> 32 & 0xFFFF) as u16);
    let refuse = |why: String| Raised::new(Exception::with_error(vector::TS, selector.error(true)), why);
    let descriptor = scene
        .descriptor(selector, true)
        .map_err(|raised| refuse(format!("SS{ring} of the TSS: {}", raised.why)))?;
    if !descriptor.is_writable_data() {
        return Err(refuse(format!("SS{ring} {:#x} of the TSS names no writable data segment", selector.0)));
    }
    Ok((descriptor, word & 0xFFFF_FFFF))
}

impl Scene<'_> {
    /// The mode that the CPU was in.
    pub(super) fn mode(&self) -> Mode {
        Mode::of(self.state)
    }

    /// A #GP or #SS: with an error code of 0 where there are error codes.
    fn selector_fault(&self, vector: u8, why: String) -> Raised {
        let is_real = self.mode() == Mode::Real;
        Raised::new(if is_real { Exception::plain(vector) } else { Exception::with_error(vector, 0) }, why)
    }
}
