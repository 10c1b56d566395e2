//! Deaths by control registers, segments and model-specific registers.

use core::arch::asm;
use core::hint::black_box;

use super::{Death, death};

pub(crate) const DEATHS: &[Death] = &[
    death("bad-cr3", "loads CR3 with an address where no page tables are", bad_cr3),
    death("cr3-outside-ram", "loads CR3 with an address where no RAM is", cr3_outside_ram),
    death("pae-off", "clears CR4.PAE in long mode", pae_off),
    death("protection-off", "clears CR0.PE while paging is on", protection_off),
    death("bad-selector", "loads DS with a selector that the GDT does not have", bad_selector),
    death("unknown-msr", "writes a model-specific register that no CPU has", unknown_msr),
    death("stack-nowhere", "pushes while RSP is not canonical", stack_nowhere),
    death("endless-loop", "waits for what never changes", endless_loop),
    death("endless-wait", "halts until an interrupt comes, and none can", endless_wait),
];

/// Page 16 is free RAM, and zero: tables without an entry. The next instruction is what cannot be fetched.
fn bad_cr3() {
    // SAFETY: None.
    // DIES HERE: bad-cr3
    unsafe { asm!("mov cr3, {}", "nop", in(reg) black_box(0x1_0000_u64)) };
}

fn cr3_outside_ram() {
    // SAFETY: None.
    // DIES HERE: cr3-outside-ram
    unsafe { asm!("mov cr3, {}", "nop", in(reg) black_box(0x7000_0000_u64)) };
}

fn pae_off() {
    const PAE: u64 = 1 << 5;
    let cr4: u64;
    // SAFETY: Reading it changes nothing.
    unsafe { asm!("mov {}, cr4", out(reg) cr4) };
    // SAFETY: None.
    // DIES HERE: pae-off
    unsafe { asm!("mov cr4, {}", in(reg) cr4 & !PAE) };
}

/// Paging needs protected mode.
fn protection_off() {
    const PROTECTION: u64 = 1 << 0;
    let cr0: u64;
    // SAFETY: Reading it changes nothing.
    unsafe { asm!("mov {}, cr0", out(reg) cr0) };
    // SAFETY: None.
    // DIES HERE: protection-off
    unsafe { asm!("mov cr0, {}", in(reg) cr0 & !PROTECTION) };
}

fn bad_selector() {
    // SAFETY: None.
    // DIES HERE: bad-selector
    unsafe { asm!("mov ds, {:x}", in(reg) black_box(0x1230_u64)) };
}

fn unknown_msr() {
    // SAFETY: None.
    // DIES HERE: unknown-msr
    unsafe { asm!("wrmsr", in("ecx") black_box(0xDEAD_BEEF_u32), in("eax") 0, in("edx") 0) };
}

/// A stack fault wants a stack, too: it becomes a double fault.
fn stack_nowhere() {
    // SAFETY: None.
    // DIES HERE: stack-nowhere
    unsafe { asm!("mov rsp, {0}", "push {0}", in(reg) black_box(0xDEAD_0000_0000_0000_u64)) };
}

fn endless_loop() {
    // DIES HERE: endless-loop
    while black_box(true) {}
}

fn endless_wait() {
    // SAFETY: None.
    // DIES HERE: endless-wait
    unsafe { asm!("sti", "hlt") };
}
