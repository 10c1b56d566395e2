//! The rules of system instructions: control registers, descriptor tables, segment loads, far returns, MSRs.

use iced_x86::{Mnemonic, OpKind, Register};
use shared_abi::Gva;
use x86_64::registers::control::{Cr0Flags, Cr4Flags};
use x86_64::registers::rflags::RFlags;

use super::Raised;
use super::access::Scene;
use super::descriptor::{AVAILABLE_TSS, LDT, Selector};
use super::first::{general_protection, operand_value};
use crate::debug::exception::{Exception, vector};
use crate::debug::instruction::{self, is_canonical};

/// Checks what the instruction asks of the machine. Its memory operands were found to be there.
pub(super) fn check(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    match decoded.mnemonic() {
        Mnemonic::Mov if decoded.op0_register().is_cr() => load_control(scene, decoded),
        Mnemonic::Mov if decoded.op0_register().is_dr() => load_debug(scene, decoded),
        Mnemonic::Mov | Mnemonic::Pop if decoded.op0_register().is_segment_register() => {
            load_segment(scene, decoded)
        }
        Mnemonic::Lidt | Mnemonic::Lgdt => load_table(scene, decoded),
        Mnemonic::Ltr => load_system(scene, decoded, AVAILABLE_TSS, "TSS"),
        Mnemonic::Lldt => load_system(scene, decoded, LDT, "LDT"),
        Mnemonic::Iretq => interrupt_return(scene, 8),
        Mnemonic::Iretd => interrupt_return(scene, 4),
        Mnemonic::Retf => far_return(scene, decoded),
        Mnemonic::Jmp | Mnemonic::Call if decoded.is_jmp_far_indirect() || decoded.is_call_far_indirect() => {
            far_branch(scene, decoded)
        }
        Mnemonic::Sysret | Mnemonic::Sysretq => system_return(scene),
        Mnemonic::Wrmsr | Mnemonic::Rdmsr => model_specific(scene, decoded),
        _ => Ok(()),
    }
}

/// `mov crN, …`. Intel SDM vol. 2B, MOV—Move to/from Control Registers.
fn load_control(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    let Some(value) = operand_value(scene, decoded, 1) else { return Ok(()) };
    let refused = match decoded.op0_register() {
        Register::CR0 => refused_cr0(value),
        Register::CR3 => {
            let keeps_tlb = scene.cr4().contains(Cr4Flags::PCID) && value >> 63 != 0;
            let reserved = if keeps_tlb { value & !(1 << 63) } else { value } >> 52 != 0;
            reserved.then_some("bits above the physical address are set")
        }
        Register::CR4 => refused_cr4(scene, value),
        Register::CR8 => (value > 0xF).then_some("a priority has 4 bits"),
        _ => Some("there is no such control register"),
    };
    match refused {
        None => Ok(()),
        Some(why)
            if matches!(
                decoded.op0_register(),
                Register::CR0 | Register::CR3 | Register::CR4 | Register::CR8
            ) =>
        {
            Err(general_protection(format!("{:?} cannot be {value:#x}: {why}", decoded.op0_register())))
        }
        Some(why) => Err(Raised::new(Exception::plain(vector::UD), why.to_owned())),
    }
}

fn refused_cr0(value: u64) -> Option<&'static str> {
    let bits = Cr0Flags::from_bits_retain(value);
    if value >> 32 != 0 {
        Some("bits 63 to 32 are reserved")
    } else if !bits.contains(Cr0Flags::PAGING) {
        Some("PG cannot be cleared in 64-bit mode")
    } else if !bits.contains(Cr0Flags::PROTECTED_MODE_ENABLE) {
        Some("PG needs PE")
    } else if bits.contains(Cr0Flags::NOT_WRITE_THROUGH) && !bits.contains(Cr0Flags::CACHE_DISABLE) {
        Some("NW needs CD")
    } else {
        None
    }
}

fn refused_cr4(scene: &Scene<'_>, value: u64) -> Option<&'static str> {
    let bits = Cr4Flags::from_bits_retain(value);
    let old = scene.cr4();
    let turns_on = |flag| bits.contains(flag) && !old.contains(flag);
    if value >> 32 != 0 || value & 1 << 15 != 0 {
        Some("reserved bits are set")
    } else if !bits.contains(Cr4Flags::PHYSICAL_ADDRESS_EXTENSION) {
        Some("PAE cannot be cleared in 64-bit mode")
    } else if turns_on(Cr4Flags::L5_PAGING) {
        Some("LA57 cannot be changed in 64-bit mode")
    } else if turns_on(Cr4Flags::PCID) && scene.state.special.cr3 & 0xFFF != 0 {
        Some("PCIDE needs the low 12 bits of CR3 to be 0")
    } else {
        None
    }
}

/// `mov drN, …`
fn load_debug(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    let Some(value) = operand_value(scene, decoded, 1) else { return Ok(()) };
    let register = decoded.op0_register();
    let is_control = matches!(register, Register::DR4 | Register::DR5 | Register::DR6 | Register::DR7);
    if is_control && value >> 32 != 0 {
        return Err(general_protection(format!(
            "{register:?} cannot be {value:#x}: bits 63 to 32 are reserved"
        )));
    }
    Ok(())
}

/// `mov` and `pop` to a segment register.
fn load_segment(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    let value = match decoded.mnemonic() {
        Mnemonic::Pop => Some(scene.peek(Gva(scene.state.general.rsp))),
        _ => operand_value(scene, decoded, 1),
    };
    let Some(value) = value else { return Ok(()) };
    let selector = Selector((value & 0xFFFF) as u16);
    match decoded.op0_register() {
        Register::CS => Err(Raised::new(Exception::plain(vector::UD), "CS cannot be loaded so".to_owned())),
        Register::SS => scene.check_stack_segment(selector, scene.cpl()),
        _ => scene.check_data_segment(selector),
    }
}

/// `lidt` and `lgdt`: a limit of 2 bytes, then the base.
fn load_table(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    let at = decoded.virtual_address(0, 0, |register, _, _| instruction::value(register, scene.state));
    let Some(at) = at else { return Ok(()) };
    let base = Gva(scene.peek(Gva(at.wrapping_add(2))));
    if is_canonical(base) {
        return Ok(());
    }
    Err(general_protection(format!("the base {base} that it loads is not canonical")))
}

fn load_system(
    scene: &Scene<'_>,
    decoded: &iced_x86::Instruction,
    kind: u8,
    name: &str,
) -> Result<(), Raised> {
    match operand_value(scene, decoded, 0) {
        Some(value) => scene.check_system_segment(Selector((value & 0xFFFF) as u16), kind, name),
        None => Ok(()),
    }
}

/// The words on the stack, each of `size` bytes.
fn popped<const COUNT: usize>(scene: &Scene<'_>, size: u64) -> [u64; COUNT] {
    let mask = if size == 8 { u64::MAX } else { (1 << (size * 8)) - 1 };
    let mut words = [0; COUNT];
    for (index, word) in words.iter_mut().enumerate() {
        *word = scene.peek(Gva(scene.state.general.rsp.wrapping_add(index as u64 * size))) & mask;
    }
    words
}

/// `iretq`: RIP, CS, RFLAGS, RSP and SS are on the stack. Intel SDM vol. 2A, IRET (operation, IA-32e mode).
fn interrupt_return(scene: &Scene<'_>, size: u64) -> Result<(), Raised> {
    if RFlags::from_bits_retain(scene.state.general.rflags).contains(RFlags::NESTED_TASK) {
        return Err(general_protection("RFLAGS.NT is set, and there is no task to return to"));
    }
    let [rip, cs, _, _, ss] = popped(scene, size);
    let cs = Selector((cs & 0xFFFF) as u16);
    scene.check_return_code(cs).map_err(|raised| raised.during("the frame"))?;
    scene
        .check_stack_segment(Selector((ss & 0xFFFF) as u16), cs.rpl())
        .map_err(|raised| raised.during("the frame"))?;
    returned_to(rip)
}

/// `retf`: RIP and CS are on the stack.
fn far_return(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    let size = match decoded.code() {
        iced_x86::Code::Retfq | iced_x86::Code::Retfq_imm16 => 8,
        iced_x86::Code::Retfd | iced_x86::Code::Retfd_imm16 => 4,
        _ => 2,
    };
    let [rip, cs] = popped(scene, size);
    scene.check_return_code(Selector((cs & 0xFFFF) as u16))?;
    returned_to(rip)
}

fn returned_to(rip: u64) -> Result<(), Raised> {
    if is_canonical(Gva(rip)) {
        return Ok(());
    }
    Err(general_protection(format!("it would return to {rip:#x}, which is not canonical")))
}

/// A far `jmp` or `call` through memory: an offset, then the selector. A call gate is not followed.
fn far_branch(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    if decoded.op0_kind() != OpKind::Memory {
        return Ok(());
    }
    let at = decoded.virtual_address(0, 0, |register, _, _| instruction::value(register, scene.state));
    let Some(at) = at else { return Ok(()) };
    let offset_size = decoded.memory_size().size().saturating_sub(2) as u64;
    let selector = Selector((scene.peek(Gva(at.wrapping_add(offset_size))) & 0xFFFF) as u16);
    if selector.is_null() {
        return Err(general_protection("the selector of the far branch is null"));
    }
    let descriptor = scene.descriptor(selector, false)?;
    const CALL_GATE: u8 = 0b1100;
    if !descriptor.is_code() && !descriptor.is_system(CALL_GATE) {
        let why = format!("selector {:#x} names no code segment", selector.0);
        return Err(Raised::new(Exception::with_error(vector::GP, selector.error(false)), why));
    }
    if !descriptor.is_present() {
        let why = format!("the segment {:#x} is not present", selector.0);
        return Err(Raised::new(Exception::with_error(vector::NP, selector.error(false)), why));
    }
    Ok(())
}

/// `sysret`: RCX goes to RIP.
fn system_return(scene: &Scene<'_>) -> Result<(), Raised> {
    let rcx = scene.state.general.rcx;
    if is_canonical(Gva(rcx)) {
        return Ok(());
    }
    Err(general_protection(format!("RCX {rcx:#x}, where it returns to, is not canonical")))
}

/// By elimination: nothing else of these instructions can fail in ring 0.
fn model_specific(scene: &Scene<'_>, decoded: &iced_x86::Instruction) -> Result<(), Raised> {
    let msr = scene.state.general.rcx & 0xFFFF_FFFF;
    Err(general_protection(if decoded.mnemonic() == Mnemonic::Rdmsr {
        format!("MSR {msr:#x} does not exist here")
    } else {
        let value = scene.state.general.rdx << 32 | scene.state.general.rax & 0xFFFF_FFFF;
        format!("MSR {msr:#x} does not exist here or cannot be {value:#x}")
    }))
}
