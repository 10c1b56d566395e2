//! From the first instruction in the machine to the program's `main`.
//!
//! The VMM (`vmm/src/boot/cpu_mode.rs`) has done what firmware and boot loader do elsewhere: 64-bit mode is on,
//! page tables map all RAM to itself, RSP points to the end of the stack, RDI holds the address of [`BootInfo`],
//! interrupts are off. So `_start` has little left to do, and says it in three instructions.

use shared_abi::BootInfo;

/// The contract that this kernel was built against, for the host to compare. It is in the ELF file and never loaded.
#[cfg(target_os = "none")]
#[used]
#[unsafe(link_section = ".note.duet")]
static CONTRACT: shared_abi::contract::Note = shared_abi::contract::Note::THIS;

/// The first instruction of the guest.
///
/// CROSSING 2, host -> guest: the VMM's first KVM_RUN lands here. The guest relies on the registers named above and
/// on nothing else; the host has no way to tell how far it gets, until it exits.
///
/// 1. RBP = 0 ends the chain of frame pointers, so a backtrace knows where to stop.
/// 2. `call` pushes a return address: Rust expects RSP to be 16-byte aligned *before* a call, as it is here
///    (System V AMD64 ABI, 3.2.2). `start` never returns.
/// 3. `ud2` makes a fault out of the impossible return.
#[cfg(target_os = "none")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.boot")]
unsafe extern "C" fn _start() -> ! {
    core::arch::naked_asm!(
        "xor ebp, ebp",
        "call {start}",
        "ud2",
        start = sym start,
    )
}

/// The first Rust code of the guest: readies it for exceptions, checks who started it, runs the program, ends.
#[cfg(target_os = "none")]
extern "C" fn start(info: &'static BootInfo) -> ! {
    unsafe extern "C" {
        /// The program's `main`, by the `entry!` macro.
        safe fn guest_main();
    }
    crate::cpu::load_tables(crate::cpu::CpuId::FIRST);
    assert!(
        info.magic == BootInfo::MAGIC && info.version == BootInfo::VERSION,
        "RDI holds no boot info of version {}: this kernel is started by the Duet VMM only",
        BootInfo::VERSION,
    );
    guest_main();
    crate::power::exit(shared_abi::exit_code::SUCCESS)
}

/// What the host told the kernel at start.
#[cfg(target_os = "none")]
#[must_use]
pub fn boot_info() -> &'static BootInfo {
    // SAFETY: The VMM wrote a `BootInfo` at this address before the first instruction (checked by `start`), the
    // page is mapped read-only, and the address is aligned to a page.
    unsafe { &*(shared_abi::layout::BOOT_INFO.0 as *const BootInfo) }
}

/// What the host told the kernel at start; on the host there is no machine.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn boot_info() -> &'static BootInfo {
    panic!("{}", crate::cpu::NOT_IN_A_MACHINE);
}
