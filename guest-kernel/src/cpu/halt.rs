//! The end of a CPU's work, or a pause in it: `hlt`.

/// Turns interrupts off and halts: nothing can wake this CPU again, and the VMM ends the run.
#[cfg(target_os = "none")]
pub fn halt_forever() -> ! {
    loop {
        // SAFETY: `cli` and `hlt` touch no memory. Nothing of ours waits for an interrupt after this point.
        unsafe { core::arch::asm!("cli", "hlt", options(nostack)) };
    }
}

/// Turns interrupts off and halts; on the host there is no machine to halt.
#[cfg(not(target_os = "none"))]
pub fn halt_forever() -> ! {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// Halts until an interrupt comes. Without an interrupt controller none ever does, and the VMM ends the run.
#[cfg(target_os = "none")]
pub fn wait_for_interrupt() {
    // SAFETY: `sti` delays interrupts by one instruction, so none is lost between the two (Intel SDM vol. 2B, STI).
    // The handler of an interrupt, if there is one, keeps all registers.
    unsafe { core::arch::asm!("sti", "hlt", options(nostack)) };
}

/// Halts until an interrupt comes; on the host there is no machine to halt.
#[cfg(not(target_os = "none"))]
pub fn wait_for_interrupt() {
    panic!("{}", super::NOT_IN_A_MACHINE);
}
