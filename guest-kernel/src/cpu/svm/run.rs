//! `vmrun`, and the registers that it does not switch.
//!
//! `vmrun` switches what is in the VMCB: RAX, RSP, RIP, RFLAGS, control registers, CS to ES. The other fourteen general
//! registers are the same on both sides; so they are exchanged here, right before and right behind. FS, GS, TR and the MSRs
//! of system calls are left as they are: our inner guest does not use them, and `vmload` and `vmsave` are for those that do.

use crate::cpu::inner::Registers;

/// Enters the guest of the VMCB at `vmcb_gpa`, and comes back when it leaves.
///
/// 1. The hypervisor's registers that a callee must keep go to its stack, and the address of the guest's.
/// 2. The guest's registers are loaded.
/// 3. `clgi`: no interrupt between here and the guest, whose RFLAGS would be wrong for it.
/// 4. CPU: `vmrun` saves the hypervisor's state at VM_HSAVE_PA and loads the guest's from the VMCB.
/// 5. The guest runs. CPU, at its exit: writes the VMCB, loads the hypervisor's state, goes on behind `vmrun`.
/// 6. `stgi`; then all of it backwards. RSI is both the guest's and the address to save it at, so they meet on the stack.
///
/// # Safety
/// 1. SVM is on, and VM_HSAVE_PA is set.
/// 2. At `vmcb_gpa` is the VMCB of a guest that breaks nothing.
/// 3. `registers` may be read and written.
#[cfg(target_os = "none")]
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn enter(vmcb_gpa: u64, registers: *mut Registers) {
    core::arch::naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rsi",
        "mov rax, rdi",
        "mov rbx, [rsi]",
        "mov rcx, [rsi + 8]",
        "mov rdx, [rsi + 16]",
        "mov rdi, [rsi + 32]",
        "mov rbp, [rsi + 40]",
        "mov r8, [rsi + 48]",
        "mov r9, [rsi + 56]",
        "mov r10, [rsi + 64]",
        "mov r11, [rsi + 72]",
        "mov r12, [rsi + 80]",
        "mov r13, [rsi + 88]",
        "mov r14, [rsi + 96]",
        "mov r15, [rsi + 104]",
        "mov rsi, [rsi + 24]",
        "clgi",
        "vmrun rax",
        "stgi",
        "xchg rsi, [rsp]",
        "mov [rsi], rbx",
        "mov [rsi + 8], rcx",
        "mov [rsi + 16], rdx",
        "mov [rsi + 32], rdi",
        "mov [rsi + 40], rbp",
        "mov [rsi + 48], r8",
        "mov [rsi + 56], r9",
        "mov [rsi + 64], r10",
        "mov [rsi + 72], r11",
        "mov [rsi + 80], r12",
        "mov [rsi + 88], r13",
        "mov [rsi + 96], r14",
        "mov [rsi + 104], r15",
        "pop rax",
        "mov [rsi + 24], rax",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// Enters a guest; on the host there is no machine.
///
/// # Safety
/// None is needed: it panics.
#[cfg(not(target_os = "none"))]
pub(super) unsafe fn enter(_vmcb_gpa: u64, _registers: *mut Registers) {
    panic!("{}", crate::cpu::NOT_IN_A_MACHINE);
}
