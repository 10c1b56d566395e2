//! The instructions of VMX. Each tells of failure by flags: CF, or ZF with a number in the VMCS (Intel SDM vol. 3C, 31.2).

use super::vmcs::Field;
use crate::cpu::inner::Registers;

/// `vmxon`: VMX is on, with a page of its own.
///
/// # Safety
/// At `gpa` is a page that starts with the CPU's revision and is the CPU's from now on; CR0, CR4 and
/// IA32_FEATURE_CONTROL allow it.
#[cfg(target_os = "none")]
pub(super) unsafe fn on(gpa: u64) -> Result<(), ()> {
    let failed: u8;
    // SAFETY: The caller's promises; the operand is eight bytes with the address.
    unsafe {
        core::arch::asm!("vmxon qword ptr [{}]", "setna {}", in(reg) &raw const gpa, out(reg_byte) failed, options(nostack));
    }
    if failed == 0 { Ok(()) } else { Err(()) }
}

/// `vmclear` and `vmptrld`: this VMCS is empty, and the one that is meant from now on.
///
/// # Safety
/// VMX is on; at `gpa` is a page that starts with the CPU's revision and is the CPU's from now on.
#[cfg(target_os = "none")]
pub(super) unsafe fn load(gpa: u64) -> Result<(), ()> {
    let (cleared, loaded): (u8, u8);
    // SAFETY: The caller's promises; the operand is eight bytes with the address.
    unsafe {
        core::arch::asm!(
            "vmclear qword ptr [{at}]",
            "setna {cleared}",
            "vmptrld qword ptr [{at}]",
            "setna {loaded}",
            at = in(reg) &raw const gpa,
            cleared = out(reg_byte) cleared,
            loaded = out(reg_byte) loaded,
            options(nostack),
        );
    }
    if cleared | loaded == 0 { Ok(()) } else { Err(()) }
}

/// `vmwrite`.
///
/// # Safety
/// A VMCS is loaded, and its guest with this value breaks nothing.
#[cfg(target_os = "none")]
pub(super) unsafe fn write(field: Field, value: u64) -> Result<(), ()> {
    let failed: u8;
    // SAFETY: The caller's promises.
    unsafe {
        core::arch::asm!("vmwrite {}, {}", "setna {}", in(reg) field as u64, in(reg) value, out(reg_byte) failed, options(nostack));
    }
    if failed == 0 { Ok(()) } else { Err(()) }
}

/// `vmread`; 0 where it fails.
#[cfg(target_os = "none")]
pub(super) fn read(field: Field) -> u64 {
    let mut value = 0;
    // SAFETY: Reads a field of the VMCS that `Hypervisor::start` has loaded; without one it fails and changes nothing.
    unsafe {
        core::arch::asm!("vmread {}, {}", inout(reg) value, in(reg) field as u64, options(nostack));
    }
    value
}

/// Enters the guest of the loaded VMCS, and comes back when it leaves: 0, or 1 when it could not be entered.
///
/// 1. The hypervisor's registers that a callee must keep go to its stack, and the address of the guest's.
/// 2. HOST_RSP and HOST_RIP are written: where the exit goes.
/// 3. The guest's registers are loaded, and it is launched or resumed. `mov` keeps the flags that say which.
/// 4. CPU: loads the guest's state; at an exit saves it and loads the hypervisor's. Behind the instruction is only failure.
/// 5. All of it backwards. RDI is both the guest's and the address to save it at, so they meet on the stack.
///
/// # Safety
/// 1. VMX is on, and a whole VMCS is loaded.
/// 2. `registers` may be read and written.
#[cfg(target_os = "none")]
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn enter(registers: *mut Registers, is_launched: u64) -> u64 {
    core::arch::naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdi",
        "mov eax, {host_rsp}",
        "vmwrite rax, rsp",
        "lea rcx, [rip + 4f]",
        "mov eax, {host_rip}",
        "vmwrite rax, rcx",
        "test rsi, rsi",
        "mov rax, [rdi + 112]",
        "mov rbx, [rdi]",
        "mov rcx, [rdi + 8]",
        "mov rdx, [rdi + 16]",
        "mov rsi, [rdi + 24]",
        "mov rbp, [rdi + 40]",
        "mov r8, [rdi + 48]",
        "mov r9, [rdi + 56]",
        "mov r10, [rdi + 64]",
        "mov r11, [rdi + 72]",
        "mov r12, [rdi + 80]",
        "mov r13, [rdi + 88]",
        "mov r14, [rdi + 96]",
        "mov r15, [rdi + 104]",
        "mov rdi, [rdi + 32]",
        "jnz 2f",
        "vmlaunch",
        "jmp 3f",
        "2: vmresume",
        "3: pop rdi",
        "mov eax, 1",
        "jmp 5f",
        "4: xchg rdi, [rsp]",
        "mov [rdi + 112], rax",
        "mov [rdi], rbx",
        "mov [rdi + 8], rcx",
        "mov [rdi + 16], rdx",
        "mov [rdi + 24], rsi",
        "mov [rdi + 40], rbp",
        "mov [rdi + 48], r8",
        "mov [rdi + 56], r9",
        "mov [rdi + 64], r10",
        "mov [rdi + 72], r11",
        "mov [rdi + 80], r12",
        "mov [rdi + 88], r13",
        "mov [rdi + 96], r14",
        "mov [rdi + 104], r15",
        "pop rax",
        "mov [rdi + 32], rax",
        "xor eax, eax",
        "5: pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        host_rsp = const Field::HostRsp as u64,
        host_rip = const Field::HostRip as u64,
    )
}

/// On the host there is no machine.
#[cfg(not(target_os = "none"))]
mod elsewhere {
    use super::{Field, Registers};
    use crate::cpu::NOT_IN_A_MACHINE;

    /// # Safety
    /// None is needed: it panics.
    pub(in crate::cpu::vmx) unsafe fn on(_gpa: u64) -> Result<(), ()> {
        panic!("{NOT_IN_A_MACHINE}");
    }

    /// # Safety
    /// None is needed: it panics.
    pub(in crate::cpu::vmx) unsafe fn load(_gpa: u64) -> Result<(), ()> {
        panic!("{NOT_IN_A_MACHINE}");
    }

    /// # Safety
    /// None is needed: it panics.
    pub(in crate::cpu::vmx) unsafe fn write(_field: Field, _value: u64) -> Result<(), ()> {
        panic!("{NOT_IN_A_MACHINE}");
    }

    pub(in crate::cpu::vmx) fn read(_field: Field) -> u64 {
        panic!("{NOT_IN_A_MACHINE}");
    }

    /// # Safety
    /// None is needed: it panics.
    pub(in crate::cpu::vmx) unsafe fn enter(_registers: *mut Registers, _is_launched: u64) -> u64 {
        panic!("{NOT_IN_A_MACHINE}");
    }
}

#[cfg(not(target_os = "none"))]
pub(super) use elsewhere::{enter, load, on, read, write};
