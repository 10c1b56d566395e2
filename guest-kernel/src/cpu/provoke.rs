//! Instructions that may raise an exception, and can be skipped when they do.
//!
//! A handler cannot just continue behind the instruction: the compiler relies on what it should have done, and how long
//! it is only a disassembler knows. These are prepared. Each notes its own address and the one behind it in a list
//! that the linker collects (`behind` reads it), and is written so that nothing goes wrong when it does nothing. None
//! is marked as leaving memory alone: a handler may run in its midst.
//! Operating systems copy from user memory in this way: Linux Documentation/arch/x86/exception-tables.rst.

#[cfg(target_os = "none")]
use core::arch::asm;

use shared_abi::Gva;

/// An instruction, and its note in the list.
#[cfg(target_os = "none")]
macro_rules! skippable {
    ($instruction:literal) => {
        concat!(
            "2: ",
            $instruction,
            "\n3:\n.pushsection .duet.skips, \"a\", @progbits\n.balign 8\n.quad 2b, 3b\n.popsection"
        )
    };
}

/// Executes `ud2`, which is no instruction: #UD.
#[cfg(target_os = "none")]
pub fn invalid_opcode() {
    // SAFETY: The instruction does nothing but fault, and nothing when it is skipped.
    unsafe { asm!(skippable!("ud2"), options(nostack, preserves_flags)) };
}

/// Divides: #DE by zero. Skipped, the quotient is the dividend.
#[cfg(target_os = "none")]
#[must_use]
pub fn divide(dividend: u64, divisor: u64) -> u64 {
    let quotient;
    // SAFETY: The instruction changes RAX, RDX and flags, or nothing when it is skipped.
    unsafe {
        asm!(
            skippable!("div {divisor}"),
            divisor = in(reg) divisor,
            inout("rax") dividend => quotient,
            inout("rdx") 0_u64 => _,
            options(nostack),
        );
    }
    quotient
}

/// Reads a byte: #PF where nothing is mapped, #GP where an address is not canonical. Skipped, the byte is 0.
#[cfg(target_os = "none")]
#[must_use]
pub fn read(gva: Gva) -> u8 {
    let byte: u32;
    // SAFETY: Reading changes no memory, and the compiler believes that any of it may be read. The register has its
    // value also when the instruction is skipped.
    unsafe {
        asm!(
            skippable!("mov {byte:l}, byte ptr [{gva}]"),
            gva = in(reg) gva.0,
            byte = inout(reg_abcd) 0_u32 => byte,
            options(nostack, preserves_flags),
        );
    }
    byte as u8
}

#[cfg(target_os = "none")]
unsafe extern "C" {
    /// Where the list starts; `link.ld` defines it.
    static SKIPS_START: [u64; 2];
    /// Behind the list; `link.ld` defines it.
    static SKIPS_END: [u64; 2];
}

/// The address behind an instruction that can be skipped; `None` for all others.
#[cfg(target_os = "none")]
pub(crate) fn behind(instruction: Gva) -> Option<Gva> {
    let (start, end) = (&raw const SKIPS_START, &raw const SKIPS_END);
    // SAFETY: The linker defines both symbols around pairs of words, aligned to 8, and nothing else is between them.
    let skips = unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) };
    skips.iter().find(|[from, _]| *from == instruction.0).map(|[_, to]| Gva(*to))
}

/// Executes `ud2`; on the host there is no handler for it.
#[cfg(not(target_os = "none"))]
pub fn invalid_opcode() {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// Divides; on the host there is no handler for a division by zero.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn divide(_dividend: u64, _divisor: u64) -> u64 {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// Reads a byte; on the host there is no such memory.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn read(_gva: Gva) -> u8 {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// The address behind an instruction; on the host none is skipped.
#[cfg(not(target_os = "none"))]
pub(crate) fn behind(_instruction: Gva) -> Option<Gva> {
    None
}
