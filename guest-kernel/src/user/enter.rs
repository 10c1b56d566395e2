//! Into ring 3 and back: the two crossings between the kernel and a program.
//!
//! For the kernel a program is what a guest is for the VMM. `Vcpu::enter_guest` in `vmm/src/vcpu.rs` goes in, something
//! happens, and it returns; [`enter`] does the same one level deeper. So no process has a stack in the kernel: while
//! it runs, the kernel's own stack waits in `enter`, and when it does not run, its registers are all there is of it.
//!
//! ```text
//! kernel's stack                        trap stack
//!   …                                   ┌ SS, RSP, RFLAGS, CS, RIP     pushed by the CPU at an exception or interrupt,
//!   enter                               │                              by `syscall_entry` after `syscall`
//!   RBP, RBX, R12 … R15  ◄── waits      │ error code, vector           as for every exception
//!                                       │ R15 … RAX, CR2               by `common` (guest-kernel/src/exceptions/entry.rs)
//!                                       └ `dispatch` runs below, and leaves for the kernel's stack
//! ```
//!
//! The trap stack holds one frame of ring 3 at a time, always in the same place. `iretq` takes it from there, and TSS.RSP0
//! has the CPU put the next one there.

use core::cell::UnsafeCell;
#[cfg(target_os = "none")]
use core::mem::offset_of;

use crate::exceptions::ExceptionFrame;

/// Bytes of the trap stack: the frame, and what `dispatch` and handlers of interrupts need.
const TRAP_STACK_SIZE: usize = 16 << 10;

/// What the CPU finds a stack in when it leaves ring 3.
#[repr(C, align(16))]
pub(crate) struct TrapStack(UnsafeCell<[u8; TRAP_STACK_SIZE]>);

// SAFETY: The CPU and `enter` alone use it, both on the one CPU that runs processes.
unsafe impl Sync for TrapStack {}

static TRAP_STACK: TrapStack = TrapStack(UnsafeCell::new([0; TRAP_STACK_SIZE]));

/// Behind the trap stack: TSS.RSP0.
pub(crate) const TRAP_STACK_END: *const u8 = TRAP_STACK.0.get().cast::<u8>().wrapping_add(TRAP_STACK_SIZE);

/// The vector that [`ExceptionFrame`] has after `syscall`: behind those that a CPU has.
pub(super) const SYSCALL: u64 = 256;

/// Lets the program with these registers run until it calls, faults, or an interrupt comes; they are then as it left
/// them, and `vector` says which of these it was.
///
/// # Safety
/// 1. CS and SS are those of ring 3, RIP is canonical, RFLAGS has no bits but those a program may have.
/// 2. The page tables in use map the kernel as it is mapped now, for ring 0 alone.
/// 3. No other CPU is in here, and interrupts are off, as they are when this returns.
#[cfg(target_os = "none")]
pub(super) unsafe fn enter(registers: &mut ExceptionFrame) {
    let frame = TRAP_STACK_END.cast_mut().cast::<ExceptionFrame>().wrapping_sub(1);
    // SAFETY: The frame is the end of the trap stack, and aligned as that is. Nobody uses it while we are in ring 0 and
    // no exception of ring 3 is being handled: `switch` returns when that is over.
    unsafe {
        frame.write(*registers);
        switch(frame);
        *registers = frame.read();
    }
}

/// RSP of the kernel while a program runs.
#[cfg(target_os = "none")]
static mut KERNEL_STACK: u64 = 0;

/// Saves what a function must keep, and goes to ring 3.
///
/// CROSSING kernel -> program: `iretq` is what leads to a less privileged ring. The program relies on its registers,
/// all of them; on the way back the kernel relies on nothing but the trap stack and `KERNEL_STACK`.
///
/// 1. What the ABI has a function keep, onto the kernel's stack (System V AMD64 ABI, 3.2.1).
/// 2. RSP steps through the frame: CR2 is left out, the general registers are popped. None of this changes the flags
///    of the comparison before it.
/// 3. Who came by `syscall` expects RCX and R11 to be lost; `sysretq` takes RIP and RFLAGS from them, RSP is loaded by
///    `mov`, and no descriptor is read.
/// 4. For all others vector and error code are left out, and `iretq` pops RIP, CS, RFLAGS, RSP and SS.
///
/// # Safety
/// As for `enter`; `frame` is on the trap stack.
#[cfg(target_os = "none")]
#[unsafe(naked)]
unsafe extern "C" fn switch(frame: *mut ExceptionFrame) {
    core::arch::naked_asm!(
        "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15",
        "mov [rip + {kernel_stack}], rsp",
        "cmp qword ptr [rdi + {vector}], {syscall}",
        "lea rsp, [rdi + {rax}]",
        "pop rax", "pop rbx", "pop rcx", "pop rdx", "pop rsi", "pop rdi", "pop rbp",
        "pop r8", "pop r9", "pop r10", "pop r11", "pop r12", "pop r13", "pop r14", "pop r15",
        "je 2f",
        "add rsp, 16",
        "iretq",
        "2: mov rcx, [rsp + {rip} - {vector}]",
        "mov r11, [rsp + {rflags} - {vector}]",
        "mov rsp, [rsp + {rsp} - {vector}]",
        "sysretq",
        kernel_stack = sym KERNEL_STACK,
        syscall = const SYSCALL,
        rax = const offset_of!(ExceptionFrame, rax),
        vector = const offset_of!(ExceptionFrame, vector),
        rip = const offset_of!(ExceptionFrame, rip),
        rflags = const offset_of!(ExceptionFrame, rflags),
        rsp = const offset_of!(ExceptionFrame, rsp),
    )
}

/// Returns from `switch`: what `dispatch` does with whatever came from ring 3.
///
/// # Safety
/// A `switch` waits.
#[cfg(target_os = "none")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn leave() -> ! {
    core::arch::naked_asm!(
        "mov rsp, [rip + {kernel_stack}]",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp",
        "ret",
        kernel_stack = sym KERNEL_STACK,
    )
}

/// Takes RFLAGS.AC away, which a program may have set. FMASK does so for `syscall`; a gate does not (Intel SDM vol. 3A,
/// 7.12.1.3), and as long as it is set SMAP protects nothing.
#[cfg(target_os = "none")]
pub(super) fn forget_flags() {
    // SAFETY: Flags that nobody relies on; the stack is as before.
    unsafe { core::arch::asm!("pushfq", "and qword ptr [rsp], {}", "popfq", const !(1_i32 << 18)) };
}

/// Where `syscall` leads: makes the frame that an interrupt would have made.
///
/// CROSSING program -> kernel: one expects a stack. There is none: `syscall` loads CS and SS, puts RIP into RCX and
/// RFLAGS into R11, clears the flags that FMASK names, and that is all. RSP still is the program's, and may be anything.
/// So the first instruction saves it where the frame has it, and only then there is a stack. An NMI before that would
/// push onto the program's stack; in this machine nobody sends one.
///
/// # Safety
/// Only the CPU may come here, by a `syscall` of ring 3.
#[cfg(target_os = "none")]
#[unsafe(naked)]
pub(super) unsafe extern "C" fn syscall_entry() {
    core::arch::naked_asm!(
        "mov [rip + {stack} + {size} - 16], rsp",
        "lea rsp, [rip + {stack} + {size}]",
        "push {user_data}",
        "sub rsp, 8",
        "push r11",
        "push {user_code}",
        "push rcx",
        "push 0",
        "push {vector}",
        "jmp {common}",
        stack = sym TRAP_STACK,
        size = const TRAP_STACK_SIZE,
        user_data = const crate::cpu::gdt::USER_DATA,
        user_code = const crate::cpu::gdt::USER_CODE,
        vector = const SYSCALL,
        common = sym crate::exceptions::entry::common,
    )
}

/// Lets a program run; on the host there is no ring 0 to be left.
///
/// # Safety
/// None is needed: it panics.
#[cfg(not(target_os = "none"))]
pub(super) unsafe fn enter(_registers: &mut ExceptionFrame) {
    panic!("{}", crate::cpu::NOT_IN_A_MACHINE);
}
