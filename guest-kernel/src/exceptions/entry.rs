//! Where the CPU arrives at an exception or interrupt: 256 entries of 16 bytes, and the code that all of them lead to.
//!
//! One would expect the CPU to say which it is. It does not: the vector only chooses the gate. So each has
//! an entry of its own, which pushes the number. Some exceptions push an error code, most do not; where there is none
//! the entry pushes 0, and from there on all look alike:
//!
//! ```text
//! higher  SS, RSP, RFLAGS, CS, RIP            pushed by the CPU, from a multiple of 16 downwards
//!         error code                          pushed by the CPU or the entry
//!         vector                              pushed by the entry
//!         R15 … RAX, CR2                      pushed by `common`; RSP now points to an `ExceptionFrame`
//!         (nothing)                           so that RSP is a multiple of 16 when Rust is called
//! lower   RIP, RBP                            a link in the chain of frames: backtraces lead through the exception
//! ```
//!
//! [`idt`](crate::cpu::idt) has the gates, `guest-kernel/link.ld` puts the entries at their address.

use shared_abi::exception::Vector;
use shared_abi::layout;

use crate::cpu::vectors;

/// Where the linker puts the entries: on the image's first page, behind `_start`. It checks this.
pub const ADDRESS: u64 = layout::KERNEL.0 + 256;
/// Bytes of all entries.
pub const SIZE: u64 = ENTRY_SIZE * vectors::COUNT as u64;

const ENTRY_SIZE: u64 = 16;

/// Where the entry of a vector is.
#[must_use]
pub const fn address_of(vector: usize) -> u64 {
    ADDRESS + ENTRY_SIZE * vector as u64
}

/// The vectors whose error code the CPU pushes, a bit each.
pub const WITH_ERROR_CODE: u32 = {
    let mut bits = 0;
    let mut index = 0;
    while index < Vector::ALL.len() {
        let vector = Vector::ALL[index];
        if vector.has_error_code() {
            bits |= 1 << vector as u32;
        }
        index += 1;
    }
    bits
};

// What the linker compares with the places of `exception_entries` and `exception_tss`.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    ".globl EXCEPTION_ENTRIES",
    ".set EXCEPTION_ENTRIES, {entries}",
    ".globl EXCEPTION_TSS",
    ".set EXCEPTION_TSS, {tss}",
    entries = const ADDRESS,
    tss = const crate::cpu::tss::ADDRESS,
);

/// The entries.
///
/// # Safety
/// Only the CPU may come here, through a gate: the stack must hold what it pushes.
#[cfg(target_os = "none")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.exceptions")]
unsafe extern "C" fn exception_entries() {
    core::arch::naked_asm!(
        // `push` of a symbol would push from memory; 0x68 is `push imm32`.
        ".set vector, 0",
        ".rept {count}",
        ".balign {size}",
        ".if vector > 31 || (({with_error_code} >> vector) & 1) == 0",
        "push 0",
        ".endif",
        ".byte 0x68",
        ".long vector",
        "jmp {common}",
        ".set vector, vector + 1",
        ".endr",
        ".balign {size}",
        count = const vectors::COUNT,
        size = const ENTRY_SIZE,
        with_error_code = const WITH_ERROR_CODE,
        common = sym common,
    )
}

/// Completes the frame, calls `dispatch` in `guest-kernel/src/exceptions.rs`, and continues where the frame then says.
///
/// 1. The general registers, as an `ExceptionFrame` has them, and CR2.
/// 2. The direction flag is clear in Rust (System V AMD64 ABI, 3.2.1); the interrupted code may have set it.
/// 3. The first argument is the frame. A link of return address and RBP makes it look like a call from the code that
///    was interrupted.
/// 4. All back. CR2, vector and error code are dropped; `iretq` takes the rest.
///
/// # Safety
/// As for the entries.
#[cfg(target_os = "none")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn common() {
    core::arch::naked_asm!(
        "push r15", "push r14", "push r13", "push r12", "push r11", "push r10", "push r9", "push r8",
        "push rbp", "push rdi", "push rsi", "push rdx", "push rcx", "push rbx", "push rax",
        "mov rax, cr2",
        "push rax",
        "cld",
        "mov rdi, rsp",
        "sub rsp, 8",
        "push [rdi + {rip}]",
        "push rbp",
        "mov rbp, rsp",
        "call {dispatch}",
        "lea rsp, [rbp + 32]",
        "pop rax", "pop rbx", "pop rcx", "pop rdx", "pop rsi", "pop rdi", "pop rbp",
        "pop r8", "pop r9", "pop r10", "pop r11", "pop r12", "pop r13", "pop r14", "pop r15",
        "add rsp, 16",
        "iretq",
        rip = const core::mem::offset_of!(shared_abi::ExceptionFrame, rip),
        dispatch = sym super::dispatch,
    )
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_with_error_codes_are_bits() {
        assert_eq!(WITH_ERROR_CODE, 0x6022_7D00);
    }
}
