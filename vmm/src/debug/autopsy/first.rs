//! The first exception: what the instruction at RIP raises, found in the order in which a CPU finds it.
//!
//! Fetch, decode, privilege, the rules of system instructions, memory operands, jump targets, division: each step either
//! raises something or leads to the next (Intel SDM vol. 3A, table 6-2). What cannot be seen from outside is left out:
//! which features KVM shows in CPUID, which MSRs it knows, XCR0, the I/O permission bitmap, pending x87 and SIMD errors.

use iced_x86::{Code, CpuidFeature, EncodingKind, FlowControl, InstructionInfoFactory, Mnemonic, OpKind};
use shared_abi::Gva;
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};
use x86_64::registers::rflags::RFlags;

use super::access::{Kind, Scene};
use super::delivery::Source;
use super::{Raised, system};
use crate::debug::exception::{Exception, vector};
use crate::debug::instruction::{self, Instruction, MAX_SIZE, is_canonical};

/// What the instruction at RIP raises; when it raises nothing, what may have happened instead.
pub(super) fn of(scene: &Scene<'_>) -> Result<String, (Raised, Source)> {
    let by_cpu = |raised| (raised, Source::Event);
    let Some((decoded, text)) = fetch(scene).map_err(by_cpu)? else {
        return Ok("the instruction at RIP lies outside RAM".to_owned());
    };
    software_interrupt(&decoded)?;
    opcode(scene, &decoded).map_err(by_cpu)?;
    privilege(scene, &decoded).map_err(by_cpu)?;
    operands(scene, &decoded, &text).map_err(by_cpu)?;
    system::check(scene, &decoded).map_err(by_cpu)?;
    target(scene, &decoded).map_err(by_cpu)?;
    division(scene, &decoded, &text).map_err(by_cpu)?;
    if RFlags::from_bits_retain(scene.state.general.rflags).contains(RFlags::TRAP_FLAG) {
        return Err(by_cpu(Raised::new(Exception::plain(vector::DB), "RFLAGS.TF is set".to_owned())));
    }
    Ok(format!("the instruction at RIP, `{}`, raises no exception that can be seen from outside", text.text))
}

/// A #GP(0) for this reason.
pub(super) fn general_protection(why: impl Into<String>) -> Raised {
    Raised::new(Exception::with_error(vector::GP, 0), why.into())
}

pub(super) fn invalid_opcode(why: impl Into<String>) -> Raised {
    Raised::new(Exception::plain(vector::UD), why.into())
}

/// The instruction at RIP; `None` when KVM cannot read it from RAM.
fn fetch(scene: &Scene<'_>) -> Result<Option<(iced_x86::Instruction, Instruction)>, Raised> {
    let rip = scene.state.rip();
    if !is_canonical(rip) {
        return Err(general_protection(format!("RIP {rip} is not canonical")));
    }
    scene.check(rip, 1, Kind::Fetch)?;
    let space = scene.state.space(scene.memory);
    let mut bytes = instruction::bytes_at(&space, rip);
    let page_left = (0x1000 - rip.page_offset()) as usize;
    if page_left < MAX_SIZE && instruction::is_cut(bytes.get(..page_left).unwrap_or(&bytes), 64) {
        // The rest stands on the next page.
        scene.check(Gva(rip.0.wrapping_add(page_left as u64)), 1, Kind::Fetch)?;
    } else {
        bytes.truncate(page_left.max(1));
    }
    if let Some(decoded) = instruction::decode(rip, &bytes, 64) {
        let text = Instruction::of(&decoded, &bytes, scene.state);
        return Ok(Some((decoded, text)));
    }
    if instruction::is_cut(&bytes, 64) {
        return Ok(None);
    }
    Err(if bytes.len() == MAX_SIZE && is_too_long(&bytes) {
        general_protection("the instruction is longer than 15 bytes")
    } else {
        invalid_opcode(format!(
            "the bytes {} are no instruction",
            instruction::spaced(bytes.get(..4).unwrap_or(&bytes))
        ))
    })
}

/// Whether the bytes are prefixes only.
fn is_too_long(bytes: &[u8]) -> bool {
    bytes.iter().all(
        |byte| matches!(byte, 0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67 | 0xF0 | 0xF2 | 0xF3 | 0x40..=0x4F),
    )
}

pub(super) fn software_interrupt(decoded: &iced_x86::Instruction) -> Result<(), (Raised, Source)> {
    let vector = match decoded.mnemonic() {
        Mnemonic::Int3 => vector::BP,
        Mnemonic::Int1 => vector::DB,
        Mnemonic::Int => decoded.immediate8(),
        _ => return Ok(()),
    };
    let raised = Raised::new(Exception::plain(vector), "the instruction asks for it".to_owned());
    Err((raised, Source::Instruction))
}

/// Instructions that are none here, or need a unit that is off.
fn opcode(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    let cr0 = Cr0Flags::from_bits_retain(scene.state.special.cr0);
    let emulates = cr0.contains(Cr0Flags::EMULATE_COPROCESSOR);
    let task_switched = cr0.contains(Cr0Flags::TASK_SWITCHED);
    let not_available = |why: &str| Err(Raised::new(Exception::plain(vector::NM), why.to_owned()));
    let features = decoded.cpuid_features();
    let has = |feature| features.contains(&feature);
    match decoded.mnemonic() {
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => {
            return Err(invalid_opcode("the instruction that is invalid on purpose"));
        }
        Mnemonic::Syscall | Mnemonic::Sysret | Mnemonic::Sysretq
            if !scene.efer().contains(EferFlags::SYSTEM_CALL_EXTENSIONS) =>
        {
            return Err(invalid_opcode("EFER.SCE is 0"));
        }
        _ => {}
    }
    if (has(CpuidFeature::FPU) || has(CpuidFeature::FXSR)) && decoded.mnemonic() != Mnemonic::Wait {
        if emulates {
            return not_available("CR0.EM is set: there is no x87");
        }
        if task_switched {
            return not_available("CR0.TS is set: the x87 belongs to another task");
        }
    }
    if has(CpuidFeature::XSAVE) && !scene.cr4().contains(Cr4Flags::OSXSAVE) {
        return Err(invalid_opcode("CR4.OSXSAVE is 0"));
    }
    if has(CpuidFeature::FSGSBASE) && !scene.cr4().contains(Cr4Flags::FSGSBASE) {
        return Err(invalid_opcode("CR4.FSGSBASE is 0"));
    }
    if !uses_vectors(decoded) {
        return Ok(());
    }
    if emulates {
        return Err(invalid_opcode("CR0.EM is set: there is no SSE"));
    }
    let needed = match decoded.encoding() {
        EncodingKind::Legacy => (Cr4Flags::OSFXSR, "CR4.OSFXSR is 0: SSE is off"),
        _ => (Cr4Flags::OSXSAVE, "CR4.OSXSAVE is 0: AVX is off"),
    };
    if !scene.cr4().contains(needed.0) {
        return Err(invalid_opcode(needed.1));
    }
    if task_switched {
        return not_available("CR0.TS is set: the SSE registers belong to another task");
    }
    Ok(())
}

/// Whether SSE or AVX registers take part.
fn uses_vectors(decoded: &iced_x86::Instruction) -> bool {
    let mut factory = InstructionInfoFactory::new();
    factory.info(decoded).used_registers().iter().any(|used| used.register().is_vector_register())
}

/// Instructions that are the kernel's. Intel SDM vol. 3A, 5.9.
pub(super) fn privilege(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    if scene.cpl() == 0 || !decoded.is_privileged() {
        return Ok(());
    }
    let iopl = (scene.state.general.rflags >> 12 & 3) as u8;
    let by_iopl = matches!(
        decoded.mnemonic(),
        Mnemonic::Cli
            | Mnemonic::Sti
            | Mnemonic::In
            | Mnemonic::Out
            | Mnemonic::Insb
            | Mnemonic::Insw
            | Mnemonic::Insd
            | Mnemonic::Outsb
            | Mnemonic::Outsw
            | Mnemonic::Outsd
    );
    if by_iopl && scene.cpl() <= iopl {
        return Ok(());
    }
    let what = if by_iopl { "needs an IOPL of its ring or an I/O permission" } else { "is for ring 0" };
    Err(general_protection(format!("the instruction {what}, and this is ring {}", scene.cpl())))
}

/// The memory that the instruction uses: what it reads first, then what it writes.
fn operands(scene: &Scene<'_>, decoded: &iced_x86::Instruction, text: &Instruction) -> Result<(), Raised> {
    let (reads, writes): (Vec<_>, Vec<_>) =
        text.operands.iter().partition(|operand| !operand.access.writes());
    for operand in reads.into_iter().chain(writes) {
        let last = Gva(operand.gva.0.wrapping_add(operand.size.max(1) - 1));
        let outside = [operand.gva, last].into_iter().find(|&gva| !is_canonical(gva));
        if let Some(gva) = outside {
            let vector = if operand.is_stack { vector::SS } else { vector::GP };
            return Err(Raised::new(Exception::with_error(vector, 0), format!("{gva} is not canonical")));
        }
        if let Some(alignment) = needed_alignment(decoded, operand.size)
            && !operand.gva.0.is_multiple_of(alignment)
        {
            let why = format!("{} is no multiple of {alignment}, as `{}` needs it", operand.gva, text.text);
            return Err(general_protection(why));
        }
        let kind = if operand.access.writes() { Kind::Write } else { Kind::Read };
        scene.check(operand.gva, operand.size, kind)?;
    }
    Ok(())
}

/// The alignment without which the instruction raises #GP. Intel SDM vol. 1, 4.1.1 and vol. 3A, table 6-7.
fn needed_alignment(decoded: &iced_x86::Instruction, size: u64) -> Option<u64> {
    let mnemonic = decoded.mnemonic();
    match mnemonic {
        Mnemonic::Vmovaps
        | Mnemonic::Vmovapd
        | Mnemonic::Vmovdqa
        | Mnemonic::Vmovntps
        | Mnemonic::Vmovntpd
        | Mnemonic::Vmovntdq
        | Mnemonic::Vmovntdqa => return Some(size.max(16)),
        Mnemonic::Fxsave
        | Mnemonic::Fxsave64
        | Mnemonic::Fxrstor
        | Mnemonic::Fxrstor64
        | Mnemonic::Cmpxchg16b => {
            return Some(16);
        }
        Mnemonic::Xsave
        | Mnemonic::Xsave64
        | Mnemonic::Xsaveopt
        | Mnemonic::Xsaveopt64
        | Mnemonic::Xrstor
        | Mnemonic::Xrstor64
        | Mnemonic::Xsaves
        | Mnemonic::Xrstors
        | Mnemonic::Xsavec => return Some(64),
        _ => {}
    }
    let may_be_unaligned = matches!(
        mnemonic,
        Mnemonic::Movups
            | Mnemonic::Movupd
            | Mnemonic::Movdqu
            | Mnemonic::Lddqu
            | Mnemonic::Pcmpestri
            | Mnemonic::Pcmpestrm
            | Mnemonic::Pcmpistri
            | Mnemonic::Pcmpistrm
            | Mnemonic::Maskmovdqu
    );
    let is_sse = decoded.encoding() == EncodingKind::Legacy && size == 16 && uses_vectors(decoded);
    (is_sse && !may_be_unaligned).then_some(16)
}

/// Where a near branch leads: an address that is not canonical is refused before RIP changes.
fn target(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    let to = match (decoded.flow_control(), decoded.code()) {
        (FlowControl::Return, Code::Retnq | Code::Retnq_imm16) => {
            Some(scene.peek(Gva(scene.state.general.rsp)))
        }
        (FlowControl::IndirectBranch | FlowControl::IndirectCall, _) if is_near(decoded) => {
            operand_value(scene, decoded, 0)
        }
        _ => None,
    };
    match to {
        Some(to) if !is_canonical(Gva(to)) => {
            Err(general_protection(format!("it leads to {to:#x}, which is not canonical")))
        }
        _ => Ok(()),
    }
}

fn is_near(decoded: &iced_x86::Instruction) -> bool {
    matches!(decoded.code(), Code::Jmp_rm64 | Code::Call_rm64)
}

/// The value of an operand, zero-extended; `None` for one of more than 8 bytes.
pub(super) fn operand_value(scene: &Scene<'_>, decoded: &iced_x86::Instruction, operand: u32) -> Option<u64> {
    match decoded.op_kind(operand) {
        OpKind::Register => instruction::value(decoded.op_register(operand), scene.state),
        OpKind::Memory => {
            let gva = decoded
                .virtual_address(operand, 0, |register, _, _| instruction::value(register, scene.state))?;
            let mask = match decoded.memory_size().size() {
                size @ 1..8 => (1 << (size * 8)) - 1,
                8 => u64::MAX,
                _ => return None,
            };
            Some(scene.peek(Gva(gva)) & mask)
        }
        _ => None,
    }
}

/// A divisor of 0, or a quotient that does not fit.
pub(super) fn division(
    scene: &Scene<'_>,
    decoded: &iced_x86::Instruction,
    text: &Instruction,
) -> Result<(), Raised> {
    let is_signed = match decoded.mnemonic() {
        Mnemonic::Div => false,
        Mnemonic::Idiv => true,
        _ => return Ok(()),
    };
    let Some(divisor) = operand_value(scene, decoded, 0) else { return Ok(()) };
    let size = match decoded.op_kind(0) {
        OpKind::Register => decoded.op0_register().size(),
        _ => decoded.memory_size().size(),
    };
    let error = |why: String| Err(Raised::new(Exception::plain(vector::DE), why));
    if divisor == 0 {
        return error("the divisor is 0".to_owned());
    }
    let dividend = dividend(scene, size);
    let bits = size as u32 * 8;
    let fits = if is_signed {
        let extend = |value: u128, bits: u32| (value << (128 - bits)).cast_signed() >> (128 - bits);
        let quotient = extend(dividend, bits * 2).checked_div(extend(divisor.into(), bits));
        quotient.is_some_and(|quotient| extend(quotient.cast_unsigned(), bits) == quotient)
    } else {
        (dividend / u128::from(divisor)) >> bits == 0
    };
    if fits {
        Ok(())
    } else {
        error(format!("the quotient of `{}` does not fit into {bits} bits", text.text))
    }
}

/// AX, or the pair of xDX and xAX.
fn dividend(scene: &Scene<'_>, size: usize) -> u128 {
    let (rax, rdx) = (u128::from(scene.state.general.rax), u128::from(scene.state.general.rdx));
    match size {
        1 => rax & 0xFFFF,
        2 => (rdx & 0xFFFF) << 16 | rax & 0xFFFF,
        4 => (rdx & 0xFFFF_FFFF) << 32 | rax & 0xFFFF_FFFF,
        _ => rdx << 64 | rax,
    }
}
