//! The inner guest: prints a line through port 0xE9, byte by byte, and calls its hypervisor with 42 in RAX.
//!
//! It believes to be alone on a machine. Its port is not the machine's: each `out` ends in the loop of the kernel that runs
//! it, which prints in its place.

/// Where it starts.
#[cfg(target_os = "none")]
pub(super) fn entry() -> u64 {
    start as *const () as u64
}

/// Where it starts; on the host there is no machine.
#[cfg(not(target_os = "none"))]
pub(super) fn entry() -> u64 {
    panic!("{}", crate::cpu::NOT_IN_A_MACHINE);
}

/// The whole guest.
#[cfg(target_os = "none")]
#[unsafe(naked)]
unsafe extern "C" fn start() -> ! {
    core::arch::naked_asm!(
        "lea rsi, [rip + 4f]",
        "2: lodsb",
        "test al, al",
        "jz 3f",
        "out {console}, al",
        "jmp 2b",
        "3: mov eax, 42",
        "vmmcall",
        "hlt",
        r#"4: .asciz "hello from the guest in the guest\n""#,
        console = const shared_abi::ports::DEBUG_CONSOLE,
    )
}
