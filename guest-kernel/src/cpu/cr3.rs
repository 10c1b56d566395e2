//! CR3: where the page tables are, and `invlpg`, which makes the CPU forget what it has read there.

use shared_abi::{Gpa, Gva};

/// The address in CR3; the bits below it are flags, and 0 here (Intel SDM vol. 3A, table 4-12).
#[cfg(target_os = "none")]
#[must_use]
pub fn read() -> Gpa {
    let cr3: u64;
    // SAFETY: Reads a register.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
    Gpa(cr3).page_start()
}

/// Has the CPU use other tables, and forget what it remembers of the last ones.
///
/// # Safety
/// 1. `pml4_gpa` is a PML4 that maps all that the kernel uses, as it is mapped now.
/// 2. It stays one for as long as it is in CR3.
#[cfg(target_os = "none")]
pub unsafe fn write(pml4_gpa: Gpa) {
    // SAFETY: The caller's promises. No `nomem`: what is read behind it may be another page.
    unsafe { core::arch::asm!("mov cr3, {}", in(reg) pml4_gpa.0, options(nostack, preserves_flags)) };
}

/// Makes this CPU forget how everything is mapped.
#[cfg(target_os = "none")]
pub fn flush() {
    // SAFETY: CR3 gets the value that it has (Intel SDM vol. 3A, 4.10.4.1). No `nomem`: what was written to tables comes
    // first.
    unsafe {
        core::arch::asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags))
    };
}

/// Makes this CPU forget how everything is mapped; on the host there is nothing to forget.
#[cfg(not(target_os = "none"))]
pub fn flush() {}

/// Makes this CPU forget how `gva` is mapped.
#[cfg(target_os = "none")]
pub fn invalidate(gva: Gva) {
    // SAFETY: The CPU walks the tables again, whatever they say. No `nomem`: what was written to them comes first.
    unsafe { core::arch::asm!("invlpg [{}]", in(reg) gva.0, options(nostack, preserves_flags)) };
}

/// The address in CR3; on the host there is no machine.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn read() -> Gpa {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// Has the CPU use other tables; on the host there is no machine.
///
/// # Safety
/// None is needed: it panics.
#[cfg(not(target_os = "none"))]
pub unsafe fn write(_pml4_gpa: Gpa) {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// Makes this CPU forget; on the host there is nothing to forget.
#[cfg(not(target_os = "none"))]
pub fn invalidate(_gva: Gva) {}
