//! Probes of CPU modes: a guest of a few instructions starts in the mode, or goes there, and must come to its end there.
//!
//! A KVM may accept the registers of a mode and drop bits of them without a word. Then the guest would run, in another
//! mode: so [`boot::cpu_mode`](crate::boot::cpu_mode) reads back what it has set, and here that is the answer.

use shared_abi::Gpa;

use super::probe::{END, TIMEOUT, other_than_the_end};
use crate::boot::cpu_mode::StartMode;
use crate::error::{Error, Result};
use crate::tiny_guest::TinyGuest;
use crate::vm::Vm;

/// Starts a guest in `mode`; says what was seen when it does not come to its end there.
pub(super) fn start_in(mode: StartMode) -> Result<Option<String>> {
    match build(mode, &END)? {
        Ok(mut vm) => Ok(other_than_the_end(&vm.run()?.stop)),
        Err(seen) => Ok(Some(seen)),
    }
}

/// A machine that starts in `mode`, or what the KVM did instead.
fn build(mode: StartMode, code: &[u8]) -> Result<std::result::Result<Vm, String>> {
    match (TinyGuest { code, timeout: TIMEOUT }).build_in(mode) {
        Ok(vm) => Ok(Ok(vm)),
        Err(Error::RegistersChanged { difference, .. }) => {
            Ok(Err(format!("KVM changes registers: {difference}")))
        }
        Err(error @ Error::Kvm { call: "KVM_SET_SREGS" | "KVM_SET_REGS", .. }) => Ok(Err(error.to_string())),
        Err(other) => Err(other),
    }
}

/// Goes to virtual-8086 mode: 16-bit code in ring 3 under protected mode (Intel SDM vol. 3B, 21.2), entered as a system does
/// it: 32-bit code loads a TSS, whose I/O permission bitmap allows the `out`, and returns to an RFLAGS with VM set.
pub(super) fn virtual_8086() -> Result<Option<String>> {
    let mut vm = match build(StartMode::Protected, &TO_VIRTUAL_8086)? {
        Ok(vm) => vm,
        Err(seen) => return Ok(Some(seen)),
    };
    let tables = [
        (GDT + 0x08, 0x00CF_9A00_0000_FFFF), // code, as it is
        (GDT + 0x10, 0x00CF_9200_0000_FFFF), // data, as it is
        (GDT + 0x18, 0x0000_8901_0000_2068), // TSS: base 0x1_0000, limit 0x2068, present, available, 32 bits
        (GDTR, GDT << 16 | 0x1F),            // base and limit
        (TSS + 0x60, TSS_SIZE << 48),        // the word at 0x66: where the bitmap starts
    ];
    for (gpa, word) in tables {
        vm.memory().write(Gpa(gpa), &word.to_le_bytes()).expect("tables lie in RAM");
    }
    vm.memory().write(Gpa(TASK), &END).expect("the task lies in RAM");
    Ok(other_than_the_end(&vm.run()?.stop))
}

/// A whole bitmap has 0x2000 bytes and ends with one of ones; ours ends where nobody asks.
const TSS: u64 = 0x1_0000;
const TSS_SIZE: u64 = 0x68;
const GDT: u64 = 0x1_4000;
const GDTR: u64 = 0x1_5000;
/// The task's code: virtual-8086 mode reaches 1 MiB.
const TASK: u64 = 0x3_0000;

const TO_VIRTUAL_8086: [u8; 42] = [
    0x0F, 0x01, 0x15, 0x00, 0x50, 0x01, 0x00, // lgdt [0x1_5000]
    0x66, 0xB8, 0x18, 0x00, // mov ax, 0x18
    0x0F, 0x00, 0xD8, // ltr ax
    0x6A, 0x00, 0x6A, 0x00, 0x6A, 0x00, 0x6A, 0x00, // push 0: GS, FS, DS, ES
    0x6A, 0x00, // push 0: SS
    0x68, 0x00, 0x80, 0x00, 0x00, // push 0x8000: ESP
    0x68, 0x02, 0x30, 0x02, 0x00, // push 0x23002: EFLAGS with VM and IOPL 3
    0x68, 0x00, 0x30, 0x00, 0x00, // push 0x3000: CS
    0x6A, 0x00, // push 0: EIP
    0xCF, // iretd
];

/// Sends a system-management interrupt to a guest in real mode: its handler must leave a mark, and return to the guest.
///
/// The handler starts at SMBASE + 0x8000, SMBASE is 0x3_0000 after reset (Intel SDM vol. 3C, 32.4), and code in that mode
/// sees memory of its own, which KVM has to be told of.
pub(super) fn system_management() -> Result<Option<String>> {
    const HANDLER: Gpa = Gpa(0x3_8000);
    const MARK: Gpa = Gpa(0x500);
    const LEAVE_A_MARK: [u8; 7] = [
        0xC6, 0x06, 0x00, 0x05, 42, // mov byte [0x500], 42
        0x0F, 0xAA, // rsm
    ];
    let mut vm = match build(StartMode::Real, &END)? {
        Ok(vm) => vm,
        Err(seen) => return Ok(Some(seen)),
    };
    vm.memory().write(HANDLER, &LEAVE_A_MARK).expect("the handler lies in RAM");
    vm.machine().tell_system_management()?;
    vm.vcpu().interrupt_for_system_management()?;
    let stop = vm.run()?.stop;
    let mut mark = [0];
    vm.memory().read(MARK, &mut mark).expect("the mark lies in RAM");
    let came_back = other_than_the_end(&stop);
    Ok(match (mark, came_back) {
        ([42], None) => None,
        ([42], Some(seen)) => Some(format!("its handler runs, and does not return: {seen}")),
        (_, None) => Some("KVM takes KVM_SMI, and the guest's handler does not run".to_owned()),
        (_, Some(seen)) => Some(seen),
    })
}
