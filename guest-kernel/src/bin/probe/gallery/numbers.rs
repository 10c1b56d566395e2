//! Deaths by numbers, and by instructions that a CPU does not have.

use core::arch::asm;
use core::hint::black_box;

use super::{Death, death};

pub(crate) const DEATHS: &[Death] = &[
    death("div-by-zero", "divides by zero, unchecked", div_by_zero),
    death("quotient-overflow", "divides, and the quotient does not fit", quotient_overflow),
    death("ud2", "reaches what the compiler took for unreachable", ud2),
    death("unknown-instruction", "executes bytes that are no instruction", unknown_instruction),
    death("int3", "has a breakpoint and no debugger", int3),
    death("software-interrupt", "raises an interrupt that nobody handles", software_interrupt),
    death("popcnt", "counts bits by an instruction that not every KVM has for a kernel", popcnt),
];

fn div_by_zero() {
    // SAFETY: None.
    // DIES HERE: div-by-zero
    unsafe { asm!("div {}", in(reg) black_box(0_u64), inout("rax") 1_u64 => _, inout("rdx") 0_u64 => _) };
}

fn quotient_overflow() {
    // SAFETY: None.
    unsafe {
        // DIES HERE: quotient-overflow
        asm!("idiv {}", in(reg) black_box(-1_i64), inout("rax") i64::MIN => _, inout("rdx") -1_i64 => _)
    };
}

fn ud2() {
    // SAFETY: None.
    // DIES HERE: ud2
    unsafe { asm!("ud2") };
}

/// 06 was `push es` before there was a 64-bit mode.
fn unknown_instruction() {
    // SAFETY: None.
    // DIES HERE: unknown-instruction
    unsafe { asm!(".byte 0x06") };
}

fn int3() {
    // SAFETY: None.
    // DIES HERE: int3
    unsafe { asm!("int3") };
}

fn software_interrupt() {
    // SAFETY: None.
    // DIES HERE: software-interrupt
    unsafe { asm!("int 0x80") };
}

fn popcnt() {
    let bits: u64;
    // SAFETY: None. Where it is executed, it counts.
    // DIES HERE: popcnt
    unsafe { asm!("popcnt {}, {}", out(reg) bits, in(reg) black_box(0xFF_u64)) };
    assert_eq!(bits, 8);
}
