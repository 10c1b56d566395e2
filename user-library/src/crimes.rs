//! Crimes: what a program must not get away with. Each function should not return.
//!
//! They are safe to call, as the kernel has promised that they touch nothing but their own process.

/// Reads a byte anywhere.
#[must_use]
pub fn read(address: u64) -> u8 {
    // SAFETY: None: this is the crime. The kernel ends the process if the byte is not its own.
    unsafe { core::ptr::with_exposed_provenance::<u8>(address as usize).read_volatile() }
}

/// Writes a byte anywhere.
pub fn write(address: u64, byte: u8) {
    // SAFETY: None: this is the crime.
    unsafe { core::ptr::with_exposed_provenance_mut::<u8>(address as usize).write_volatile(byte) };
}

/// Continues anywhere.
#[cfg(target_os = "none")]
pub fn jump(address: u64) -> ! {
    // SAFETY: None: this is the crime.
    unsafe { core::arch::asm!("jmp {}", in(reg) address, options(noreturn)) };
}

/// Halts the CPU, which is not this program's.
#[cfg(target_os = "none")]
pub fn halt() {
    // SAFETY: None: this is the crime.
    unsafe { core::arch::asm!("hlt", options(nomem, nostack, preserves_flags)) };
}

/// Continues anywhere; on the host only panics.
#[cfg(not(target_os = "none"))]
pub fn jump(_address: u64) -> ! {
    panic!("{}", crate::NOT_IN_A_PROCESS);
}

/// Halts the CPU; on the host only panics.
#[cfg(not(target_os = "none"))]
pub fn halt() {
    panic!("{}", crate::NOT_IN_A_PROCESS);
}

/// Uses up the stack: each call keeps 512 bytes until the one below it returns, which never happens.
#[must_use]
pub fn overflow(depth: u64) -> u64 {
    let kept = core::hint::black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { overflow(depth + 1) + kept[0] }
}
