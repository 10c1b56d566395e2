//! RFLAGS.IF: whether interrupts come through.

/// Whether interrupts came through before they were turned off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// They did.
    Enabled,
    /// They did not.
    Disabled,
}

/// RFLAGS.IF (Intel SDM vol. 1, 3.4.3.3).
#[cfg(target_os = "none")]
const IF: u64 = 1 << 9;

/// Whether interrupts come through on this CPU.
#[cfg(target_os = "none")]
#[inline]
#[must_use]
pub fn interrupts_enabled() -> bool {
    let flags: u64;
    // SAFETY: Pushes a word and takes it back; no `nostack`, so the stack is ours there.
    unsafe { core::arch::asm!("pushfq", "pop {}", out(reg) flags, options(nomem, preserves_flags)) };
    flags & IF != 0
}

/// Turns interrupts off on this CPU, and says how they were.
#[cfg(target_os = "none")]
#[inline]
pub fn disable_interrupts() -> Interrupts {
    let before = if interrupts_enabled() { Interrupts::Enabled } else { Interrupts::Disabled };
    // SAFETY: Fewer interrupts break nothing. No `nomem`: what follows stays behind it.
    unsafe { core::arch::asm!("cli", options(nostack, preserves_flags)) };
    before
}

/// Turns interrupts on again if they were on.
#[cfg(target_os = "none")]
#[inline]
pub fn restore_interrupts(before: Interrupts) {
    if before == Interrupts::Enabled {
        // SAFETY: Whoever had them on was ready for them. No `nomem`: what came before stays before it.
        unsafe { core::arch::asm!("sti", options(nostack, preserves_flags)) };
    }
}

/// Has an interrupt that waits come through now, if interrupts are on.
///
/// A CPU needs no such reminder. A KVM that interprets the kernel does: it looks for interrupts when they are turned on,
/// when the CPU halts or exits, and else only now and then, some milliseconds apart. So there an interrupt that a CPU
/// sends to itself would be late, and a loop that waits for one should halt.
#[inline]
pub fn look_for_interrupts() {
    restore_interrupts(disable_interrupts());
}

/// Whether interrupts come through; on the host there are none.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn interrupts_enabled() -> bool {
    false
}

/// Turns interrupts off; on the host there are none.
#[cfg(not(target_os = "none"))]
pub fn disable_interrupts() -> Interrupts {
    Interrupts::Disabled
}

/// Turns interrupts on again; on the host there are none.
#[cfg(not(target_os = "none"))]
pub fn restore_interrupts(_before: Interrupts) {}
