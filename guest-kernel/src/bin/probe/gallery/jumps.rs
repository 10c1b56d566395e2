//! Deaths by going elsewhere: calls, jumps and returns to what is no code.

use core::arch::asm;
use core::hint::black_box;
use core::mem;

use super::{Death, death};

pub(crate) const DEATHS: &[Death] = &[
    death("null-call", "calls a function that is not there", null_call),
    death("wild-jump", "jumps to where no RAM is", wild_jump),
    death("stack-execution", "calls code that it has built on its stack", stack_execution),
    death("data-execution", "calls a table of numbers", data_execution),
    death("non-canonical-jump", "jumps to an address that no table can map", non_canonical_jump),
    death("smashed-return", "returns to an address that somebody has written over", smashed_return),
];

fn null_call() {
    // SAFETY: None.
    // DIES HERE: null-call
    unsafe { asm!("call {}", in(reg) black_box(0_u64), clobber_abi("C")) };
}

/// A jump leaves no return address: what can be found is the call before it.
fn wild_jump() {
    // DIES HERE: wild-jump
    jump_to(black_box(0x7000_0000));
}

#[inline(never)]
fn jump_to(address: u64) {
    // SAFETY: None.
    unsafe { asm!("jmp {}", in(reg) address, clobber_abi("C")) };
}

fn stack_execution() {
    // ret
    let code = black_box([0xC3_u8; 16]);
    // SAFETY: None.
    let code: extern "C" fn() = unsafe { mem::transmute(code.as_ptr()) };
    // DIES HERE: stack-execution
    code();
}

static mut NUMBERS: [u8; 16] = [0xC3; 16];

fn data_execution() {
    // SAFETY: None.
    let code: extern "C" fn() = unsafe { mem::transmute(&raw const NUMBERS) };
    // DIES HERE: data-execution
    code();
}

fn non_canonical_jump() {
    // SAFETY: None.
    // DIES HERE: non-canonical-jump
    unsafe { asm!("jmp {}", in(reg) black_box(0xDEAD_0000_0000_0000_u64), clobber_abi("C")) };
}

/// As a buffer that overflows does: the return address is a word above the frame pointer. Nothing is left of the place.
fn smashed_return() {
    // SAFETY: None.
    unsafe { asm!("mov qword ptr [rbp + 8], {}", in(reg) black_box(0x4141_4141_u64)) };
}
