//! A call on another stack.

use shared_abi::Gva;

/// Calls `work` with RSP at `stack_end`, and returns on the stack it came from.
///
/// RBP keeps the place to return to, as in every function; so a backtrace leads from one stack to the other.
///
/// # Safety
/// 1. Below `stack_end`, a multiple of 16, lies enough memory for `work`, and nobody else uses it meanwhile.
#[cfg(target_os = "none")]
pub unsafe fn call_on(stack_end: Gva, work: extern "C" fn()) {
    // SAFETY: `switch_and_call` keeps the registers of its caller, by the ABI; the stack is the caller's promise.
    unsafe { switch_and_call(stack_end.0, work) };
}

/// 1. Notes where the stack was, in RBP and below it in a frame.
/// 2. Calls on the other stack; a multiple of 16 before the call is what the ABI wants.
/// 3. Goes back.
///
/// # Safety
/// As for `call_on`.
#[cfg(target_os = "none")]
#[unsafe(naked)]
unsafe extern "C" fn switch_and_call(stack_end: u64, work: extern "C" fn()) {
    core::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov rsp, rdi",
        "call rsi",
        "mov rsp, rbp",
        "pop rbp",
        "ret"
    )
}

/// Calls `work` on another stack; on the host there is none.
///
/// # Safety
/// None is needed: it panics.
#[cfg(not(target_os = "none"))]
pub unsafe fn call_on(_stack_end: Gva, _work: extern "C" fn()) {
    panic!("{}", super::NOT_IN_A_MACHINE);
}
