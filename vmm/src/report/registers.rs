//! Registers at the start and at the end, with what their values mean.

use x86_64::registers::control::{Cr0Flags, Cr4Flags};
use x86_64::registers::model_specific::EferFlags;
use x86_64::registers::rflags::RFlags;

use super::page::{Register, Registers};
use crate::debug::{CpuState, Symbols};
use crate::explain::MemoryMap;
use shared_abi::Gva;

/// The table of registers.
pub(super) fn registers(start: &CpuState, stop: &CpuState, symbols: &Symbols, map: &MemoryMap) -> Registers {
    let which = match map.moment.vcpu {
        Some(vcpu) => format!("{vcpu}, which the run has ended on,"),
        None => "the vCPU".to_owned(),
    };
    let (before, after) = (values(start), values(stop));
    let rows = before.into_iter().zip(after).map(|((name, start), (_, stop))| Register {
        name,
        start: format!("{start:#x}"),
        stop: format!("{stop:#x}"),
        meaning: meaning(name, stop, symbols, map),
        changed: start != stop,
    });
    Registers {
        lead: format!(
            "Before the first instruction, and where {which} stopped; what has changed is marked. The last column is \
             about the end."
        ),
        rows: rows.collect(),
    }
}

fn values(cpu: &CpuState) -> Vec<(&'static str, u64)> {
    let (general, special) = (&cpu.general, &cpu.special);
    vec![
        ("RIP", general.rip),
        ("RSP", general.rsp),
        ("RBP", general.rbp),
        ("RFLAGS", general.rflags),
        ("RAX", general.rax),
        ("RBX", general.rbx),
        ("RCX", general.rcx),
        ("RDX", general.rdx),
        ("RSI", general.rsi),
        ("RDI", general.rdi),
        ("R8", general.r8),
        ("R9", general.r9),
        ("R10", general.r10),
        ("R11", general.r11),
        ("R12", general.r12),
        ("R13", general.r13),
        ("R14", general.r14),
        ("R15", general.r15),
        ("CR0", special.cr0),
        ("CR2", special.cr2),
        ("CR3", special.cr3),
        ("CR4", special.cr4),
        ("EFER", special.efer),
        ("CS", u64::from(special.cs.selector)),
        ("SS", u64::from(special.ss.selector)),
        ("GDTR", special.gdt.base),
        ("IDTR", special.idt.base),
        ("TR", special.tr.base),
        ("FS base", special.fs.base),
        ("GS base", special.gs.base),
    ]
}

/// What a value means: bits by their names, an address by what lies there.
fn meaning(name: &str, value: u64, symbols: &Symbols, map: &MemoryMap) -> String {
    match name {
        "RIP" => symbols.frames(Gva(value)).first().map(ToString::to_string).unwrap_or_default(),
        "RFLAGS" => names(RFlags::from_bits_truncate(value).iter_names()),
        "CR0" => names(Cr0Flags::from_bits_truncate(value).iter_names()),
        "CR4" => names(Cr4Flags::from_bits_truncate(value).iter_names()),
        "EFER" => names(EferFlags::from_bits_truncate(value).iter_names()),
        "CR3" => row_at(map, value & 0x000F_FFFF_FFFF_F000, false),
        "CS" | "SS" => format!("ring {}", value & 3),
        // The null page is what 0 and other small numbers would point to.
        _ if value < shared_abi::addr::PAGE_SIZE => String::new(),
        _ => row_at(map, value, true),
    }
}

/// Flags' names as they are written in the manual's prose: `long mode active`.
fn names<T>(flags: impl Iterator<Item = (&'static str, T)>) -> String {
    let names: Vec<_> = flags.map(|(name, _)| name.to_ascii_lowercase().replace('_', " ")).collect();
    names.join(", ")
}

/// What lies at an address, virtual or physical; its end counts too, as a stack starts there.
fn row_at(map: &MemoryMap, address: u64, is_virtual: bool) -> String {
    let spans = map.rows.iter().filter_map(|row| Some((row, if is_virtual { row.gva? } else { row.gpa })));
    let is_ram = |row: &&crate::explain::Row| row.hva.is_some();
    let mut near = spans.filter(|(row, _)| is_ram(row));
    near.find_map(|(row, span)| match address.checked_sub(span.start)? {
        offset if offset < span.size => Some(format!("in {}, {offset:#x} from its start", row.what)),
        _ => None,
    })
    .unwrap_or_default()
}
