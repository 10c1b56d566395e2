//! The end of a CPU's work: `cli` and `hlt`.

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
