//! ptrace(2): a child that stands still again and again, and can be looked at then.
//!
//! Who counts what programs ask of the kernel (`xtask/src/bench/traced.rs`), who follows one instruction by instruction
//! (`xtask/src/layout.rs`) and the tests that see every system call (`tests/harness/system_calls.rs`) do it by these few.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::ptr;

use libc::{c_int, c_long, pid_t, user_regs_struct};

/// How far a process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The next system call, or the way back from it.
    SystemCall,
    /// The next instruction.
    Instruction,
}

/// A thread that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub thread: pid_t,
    /// What waitpid(2) says of it.
    pub status: c_int,
}

/// The signal of a stop at a system call, once [`set_options`] was told PTRACE_O_TRACESYSGOOD.
pub const AT_SYSTEM_CALL: c_int = libc::SIGTRAP | 0x80;

/// Starts `command`, to stand still behind its exec.
///
/// # Errors
/// When it cannot be started, or not be traced.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    // SAFETY: Between fork and exec there is one system call, which takes no memory and no lock.
    unsafe { command.pre_exec(|| checked(request(libc::PTRACE_TRACEME as _, 0, 0)).map(drop)) };
    command.spawn()
}

/// Sets PTRACE_O_* for a process that stands still.
///
/// # Errors
/// When it does not.
pub fn set_options(process: pid_t, options: c_int) -> io::Result<()> {
    checked(request(libc::PTRACE_SETOPTIONS as _, process, options as usize)).map(drop)
}

/// Lets a thread that stands still go on, with a signal unless that is 0.
///
/// # Errors
/// When it does not stand still, or is gone.
pub fn go_on(thread: pid_t, until: Until, signal: c_int) -> io::Result<()> {
    let how = match until {
        Until::SystemCall => libc::PTRACE_SYSCALL,
        Until::Instruction => libc::PTRACE_SINGLESTEP,
    };
    checked(request(how as _, thread, signal as usize)).map(drop)
}

/// Waits for this process; for any of a process group when the number is negative.
///
/// # Errors
/// When there is none.
pub fn wait(process: pid_t) -> io::Result<Change> {
    let mut status = 0;
    // SAFETY: Writes the status into the variable given.
    let thread = unsafe { libc::waitpid(process, &raw mut status, libc::__WALL) };
    checked(thread.into())?;
    Ok(Change { thread, status })
}

/// The registers of a thread that stands still.
///
/// # Errors
/// When it does not.
pub fn registers(thread: pid_t) -> io::Result<user_regs_struct> {
    // SAFETY: All zeros is a value of these integers.
    let mut registers: user_regs_struct = unsafe { std::mem::zeroed() };
    let target = (&raw mut registers).expose_provenance();
    checked(request(libc::PTRACE_GETREGS as _, thread, target))?;
    Ok(registers)
}

/// Whether a thread that stands still at a system call is on its way into the kernel, not back.
///
/// # Errors
/// When it stands nowhere.
pub fn is_entry(thread: pid_t) -> io::Result<bool> {
    /// Linux include/uapi/linux/ptrace.h; the crate libc does not have them for every C library.
    const PTRACE_GET_SYSCALL_INFO: c_int = 0x420E;
    const PTRACE_SYSCALL_INFO_ENTRY: u8 = 1;
    // The first byte of `struct ptrace_syscall_info` says it.
    let mut info = [0_u8; 128];
    // SAFETY: At most as many bytes are written as the buffer has.
    let read = unsafe { libc::ptrace(PTRACE_GET_SYSCALL_INFO as _, thread, info.len(), info.as_mut_ptr()) };
    checked(read)?;
    Ok(info[0] == PTRACE_SYSCALL_INFO_ENTRY)
}

/// A request whose fourth argument is a number, or where to write what the request is known to write.
fn request(request: c_int, thread: pid_t, data: usize) -> c_long {
    // SAFETY: This module alone calls it: `data` is a number, or the address of a whole `user_regs_struct`.
    unsafe { libc::ptrace(request as _, thread, ptr::null_mut::<u8>(), data) }
}

fn checked(result: c_long) -> io::Result<c_long> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
