//! Probes of CPU modes: a vCPU is set into the mode, and a guest of three instructions must come to its end there.
//!
//! A KVM may accept the registers of a mode and drop bits of them without a word. Then the guest would run, in another
//! mode: so what was set is read back first.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use shared_abi::{Gpa, layout};
use x86_64::registers::control::{Cr0Flags, Cr4Flags};

use super::probe::{END, TIMEOUT, other_than_the_end};
use crate::error::Result;
use crate::tiny_guest::TinyGuest;
use crate::vm::Vm;

/// A mode of the CPU: what is set up before the guest starts.
#[derive(Clone, Copy)]
pub(super) struct Mode {
    cr0: Cr0Flags,
    cr4: Cr4Flags,
    segments: fn() -> Segments,
    /// Instructions before the end.
    code: &'static [u8],
    /// Words in guest memory: page tables, descriptors.
    tables: &'static [(u64, u64)],
}

/// Code, and what data, stack and all others have.
struct Segments {
    code: kvm_segment,
    data: kvm_segment,
}

/// 16-bit code. CS reaches it by a base that no selector of real mode has, as at reset.
pub(super) const REAL: Mode = Mode {
    cr0: Cr0Flags::EXTENSION_TYPE,
    cr4: Cr4Flags::empty(),
    segments: real_segments,
    code: &[],
    tables: &[],
};

/// 32-bit code, without paging.
pub(super) const PROTECTED: Mode = Mode {
    cr0: Cr0Flags::EXTENSION_TYPE.union(Cr0Flags::PROTECTED_MODE_ENABLE),
    segments: flat_segments,
    ..REAL
};

/// Where page tables lie: free memory of every machine.
const TABLES: u64 = 0x1_0000;
/// An entry that maps a large page: present, writable, PS.
const LARGE_PAGE: u64 = 0x83;

/// Two levels: one page of 4 MiB maps all RAM to itself (Intel SDM vol. 3A, 4.3).
pub(super) const PAGING_32: Mode = Mode {
    cr0: PROTECTED.cr0.union(Cr0Flags::PAGING),
    cr4: Cr4Flags::PAGE_SIZE_EXTENSION,
    tables: &[(TABLES, LARGE_PAGE)],
    ..PROTECTED
};

/// Three levels: one page of 2 MiB maps all RAM to itself (Intel SDM vol. 3A, 4.4).
pub(super) const PAE: Mode = Mode {
    cr4: Cr4Flags::PHYSICAL_ADDRESS_EXTENSION,
    tables: &[(TABLES, (TABLES + 0x1000) | 1), (TABLES + 0x1000, LARGE_PAGE)],
    ..PAGING_32
};

/// 16-bit code in ring 3 under protected mode (Intel SDM vol. 3B, 21.2), entered as a system does it: 32-bit code loads a
/// TSS, whose I/O permission bitmap allows the `out`, and returns to an RFLAGS with VM set.
pub(super) const VIRTUAL_8086: Mode = Mode {
    code: &TO_VIRTUAL_8086,
    tables: &[
        (GDT + 0x18, 0x0000_8901_0000_2068), // TSS: base 0x1_0000, limit 0x2068, present, available, 32 bits
        (TSS + 0x60, TSS_SIZE << 48),        // the word at 0x66: where the bitmap starts
    ],
    ..PROTECTED
};

/// A whole bitmap has 0x2000 bytes and ends with one of ones; ours ends where nobody asks.
const TSS: u64 = 0x1_0000;
const TSS_SIZE: u64 = 0x68;
const GDT: u64 = 0x1_4000;
/// Where the code lies once more: virtual-8086 mode reaches 1 MiB.
const LOW_CODE: u64 = 0x2_0000;

const TO_VIRTUAL_8086: [u8; 35] = [
    0x66, 0xB8, 0x18, 0x00, // mov ax, 0x18
    0x0F, 0x00, 0xD8, // ltr ax
    0x6A, 0x00, 0x6A, 0x00, 0x6A, 0x00, 0x6A, 0x00, // push 0: GS, FS, DS, ES
    0x6A, 0x00, // push 0: SS
    0x68, 0x00, 0x80, 0x00, 0x00, // push 0x8000: ESP
    0x68, 0x02, 0x30, 0x02, 0x00, // push 0x23002: EFLAGS with VM and IOPL 3
    0x68, 0x00, 0x20, 0x00, 0x00, // push 0x2000: CS
    0x6A, 0x00, // push 0: EIP
    0xCF, // iretd
];

/// Starts a guest in `mode`; says what was seen when it does not come to its end there.
pub(super) fn enter(mode: Mode) -> Result<Option<String>> {
    let code = [mode.code, &END].concat();
    let mut vm = TinyGuest { code: &code, timeout: TIMEOUT }.build()?;
    for &(gpa, word) in mode.tables {
        vm.memory().write(Gpa(gpa), &word.to_le_bytes()).expect("tables lie in RAM");
    }
    vm.memory().write(Gpa(LOW_CODE), &END).expect("the low copy lies in RAM");

    if let Some(dropped) = set(&vm, mode)? {
        return Ok(Some(dropped));
    }
    Ok(other_than_the_end(&vm.run()?.stop))
}

/// Sets the registers and reads them back; says what KVM did not take.
fn set(vm: &Vm, mode: Mode) -> Result<Option<String>> {
    let vcpu = vm.vcpu();
    let Segments { code, data } = (mode.segments)();
    let sregs = kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        cr0: mode.cr0.bits(),
        cr3: TABLES,
        cr4: mode.cr4.bits(),
        efer: 0,
        gdt: kvm_dtable { base: GDT, limit: 0x1F, padding: [0; 3] },
        ..vcpu.special_registers()?
    };
    let rip = if code.base == 0 { layout::KERNEL.0 } else { 0 };
    let regs = kvm_regs { rip, rsp: 0x8000, rflags: RESERVED_RFLAGS, ..kvm_regs::default() };
    if let Err(error) = vcpu.set_special_registers(&sregs).and_then(|()| vcpu.set_registers(&regs)) {
        return Ok(Some(error.to_string()));
    }
    let kept = vcpu.special_registers()?;
    let difference = |name: &str, set: u64, kept: u64| {
        (set != kept).then(|| format!("KVM takes {name} {set:#x} and keeps {kept:#x}"))
    };
    Ok(difference("CR0", sregs.cr0, kept.cr0).or_else(|| difference("CR4", sregs.cr4, kept.cr4)))
}

/// Bit 1 of RFLAGS is reserved and always 1 (Intel SDM vol. 1, 3.4.3).
const RESERVED_RFLAGS: u64 = 1 << 1;

fn real_segments() -> Segments {
    let segment = |base, kind| kvm_segment {
        base,
        limit: 0xFFFF,
        selector: (base >> 4) as u16,
        type_: kind,
        present: 1,
        s: 1,
        ..kvm_segment::default()
    };
    Segments { code: segment(layout::KERNEL.0, 11), data: segment(0, 3) }
}

fn flat_segments() -> Segments {
    let segment = |selector, kind| kvm_segment {
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    Segments { code: segment(8, 11), data: segment(16, 3) }
}
