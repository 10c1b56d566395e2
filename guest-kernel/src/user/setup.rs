//! What the CPU must be told before the first process: where `syscall` leads, and what ring 0 forgoes.
//!
//! The kernel never touches a user's page by the user's address: [`UserSlice`](super::slice::UserSlice) finds the page
//! and goes there by the kernel's own mapping. So SMEP and SMAP, where the CPU has them, are on for good, and `stac`,
//! which lifts SMAP for a moment, is not needed (nor is it there wherever a KVM interprets ring 0).
//!
//! Programs have no floating point: they are compiled without, and the kernel would have to keep 512 bytes or more for
//! each. So CR0.TS stays set, and whoever tries dies of #NM. A KVM that interprets ring 0 may run ring 3 without heeding
//! that; there, processes that use floating point share its registers.

#[cfg(target_os = "none")]
use super::enter;
use crate::cpu::gdt;
#[cfg(target_os = "none")]
use crate::cpu::id::{CpuId, id};
#[cfg(target_os = "none")]
use crate::cpu::{control, cpuid, msr};

/// Readies the first CPU for processes, once.
///
/// # Panics
/// On another CPU: there is one trap stack, and the TSS of the first alone has it.
#[cfg(target_os = "none")]
pub(super) fn start() {
    use core::sync::atomic::{AtomicBool, Ordering};

    assert!(id() == CpuId::FIRST, "processes run on the first CPU, and this is {}", id());
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    crate::exceptions::PROGRAMS.set(super::dispatch);
    // SAFETY: `syscall_entry` makes a frame of what `syscall` leaves, with interrupts off, and the GDT has the segments
    // in the order that the selectors stand for. EFER keeps its other bits.
    unsafe {
        msr::write(msr::STAR, SELECTORS);
        msr::write(msr::LSTAR, lstar());
        msr::write(msr::FMASK, CLEARED_FLAGS);
        msr::write(msr::EFER, msr::read(msr::EFER) | msr::EFER_SYSCALL);
    }
    // SAFETY: The kernel has no floating point, executes no page of ring 3 and touches none, as told above.
    unsafe {
        control::set_cr0(control::CR0_TASK_SWITCHED);
        control::set_cr4(protections());
    }
}

/// Where `syscall` leads.
#[cfg(target_os = "none")]
pub(super) fn lstar() -> u64 {
    enter::syscall_entry as *const () as u64
}

/// STAR: `syscall` takes CS and SS from bits 32 on, `sysret` from bits 48 on (Intel SDM vol. 3A, figure 5-14).
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "a MSR holds it"))]
const SELECTORS: u64 = (gdt::CODE as u64) << 32 | (gdt::USER_DATA as u64 - 8) << 48;
const _: () = assert!(gdt::DATA == gdt::CODE + 8 && gdt::USER_CODE == gdt::USER_DATA + 8);

/// TF, IF, DF, IOPL, NT and AC: as an interrupt gate clears them, and what Rust relies on (System V AMD64 ABI, 3.2.1).
#[cfg(target_os = "none")]
const CLEARED_FLAGS: u64 = 1 << 8 | 1 << 9 | 1 << 10 | 0b11 << 12 | 1 << 14 | 1 << 18;

/// The protections that this CPU has: CPUID leaf 7, EBX (Intel SDM vol. 2A, table 3-17).
#[cfg(target_os = "none")]
fn protections() -> u64 {
    const STRUCTURED: u32 = 7;
    let ebx = if cpuid::leaf(0).eax < STRUCTURED { 0 } else { cpuid::leaf(STRUCTURED).ebx };
    let bit = |place: u32, bits: u64| if ebx >> place & 1 == 1 { bits } else { 0 };
    bit(7, control::CR4_SMEP) | bit(20, control::CR4_SMAP)
}

/// Readies this CPU for processes; on the host there is no ring 0 to be left.
#[cfg(not(target_os = "none"))]
pub(super) fn start() {
    panic!("{}", crate::cpu::NOT_IN_A_MACHINE);
}

/// Where `syscall` leads; on the host, elsewhere.
#[cfg(not(target_os = "none"))]
pub(super) fn lstar() -> u64 {
    panic!("{}", crate::cpu::NOT_IN_A_MACHINE);
}
