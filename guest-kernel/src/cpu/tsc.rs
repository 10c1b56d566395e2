//! The time-stamp counter: a clock that is read by one instruction.

/// Reads it. What stands before in the program may be executed later, and the other way round.
#[cfg(target_os = "none")]
#[inline]
#[must_use]
pub fn read() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: Reads a counter. No `nomem`: it is compared with what the host writes to memory.
    unsafe { core::arch::asm!("rdtsc", out("eax") low, out("edx") high, options(nostack, preserves_flags)) };
    u64::from(high) << 32 | u64::from(low)
}

/// Reads it; on the host it is another one.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn read() -> u64 {
    panic!("{}", super::NOT_IN_A_MACHINE);
}
