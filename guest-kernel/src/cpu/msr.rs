//! Model-specific registers: `rdmsr` and `wrmsr`, and those that we use.

/// EFER: extended features (Intel SDM vol. 4, table 2-2).
pub const EFER: u32 = 0xC000_0080;
/// STAR: the selectors that `syscall` and `sysret` load (Intel SDM vol. 3A, 5.8.8).
pub const STAR: u32 = 0xC000_0081;
/// LSTAR: where `syscall` leads.
pub const LSTAR: u32 = 0xC000_0082;
/// FMASK: the flags that `syscall` clears.
pub const FMASK: u32 = 0xC000_0084;

/// EFER.SCE: `syscall` and `sysret` are instructions.
pub const EFER_SYSCALL: u64 = 1 << 0;

/// Reads a register. One that this CPU lacks is a #GP.
#[cfg(target_os = "none")]
#[must_use]
pub fn read(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: Reading these registers changes nothing.
    unsafe {
        core::arch::asm!(
            "rdmsr",
            in("ecx") register,
            out("eax") low,
            out("edx") high,
            options(nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a register. One that this CPU lacks, or a value that it does not know, is a #GP.
///
/// # Safety
/// What the register governs is ready for the value.
#[cfg(target_os = "none")]
pub unsafe fn write(register: u32, value: u64) {
    // SAFETY: The instruction touches no memory; what the value means is the caller's promise.
    unsafe {
        core::arch::asm!(
            "wrmsr",
            in("ecx") register,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags),
        );
    }
}
