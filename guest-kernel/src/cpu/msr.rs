//! Model-specific registers: `rdmsr` and `wrmsr`.

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

/// Reads the register `msr`. One that the CPU does not have is #GP.
#[cfg(target_os = "none")]
#[inline]
#[must_use]
pub fn read(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: Reading a register changes nothing. No `nomem`: some of them tell of memory that others write.
    unsafe {
        core::arch::asm!(
            "rdmsr",
            in("ecx") msr,
            out("eax") low,
            out("edx") high,
            options(nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes the register `msr`. A value that the CPU does not take is #GP.
///
/// # Safety
/// What the register does with this value keeps all promises of code that runs: it neither moves memory nor takes away
/// what is in use.
#[cfg(target_os = "none")]
#[inline]
pub unsafe fn write(msr: u32, value: u64) {
    // SAFETY: What becomes of it is the caller's promise.
    unsafe {
        core::arch::asm!(
            "wrmsr",
            in("ecx") msr,
            in("eax") value as u32,
            in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags),
        );
    }
}

/// Reads a register; on the host it is not ours to read.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn read(_msr: u32) -> u64 {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// Writes a register; on the host it is not ours to write.
///
/// # Safety
/// None is needed: it panics.
#[cfg(not(target_os = "none"))]
pub unsafe fn write(_msr: u32, _value: u64) {
    panic!("{}", super::NOT_IN_A_MACHINE);
}
