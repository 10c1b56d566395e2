//! System calls: asking the kernel.
//!
//! The other side is `guest-kernel/src/user/calls.rs`.

use crate::abi::{Answer, MAX_TRANSFER, SystemCall, SystemError};

/// Which instruction leads into the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// `syscall`, made for it.
    Syscall,
    /// `int 0x80`, through a gate as an interrupt takes one.
    Interrupt,
}

/// Makes a request by `syscall` and gives the kernel's answer.
///
/// # Errors
/// The kernel's.
pub fn call(number: SystemCall, arguments: [u64; 3]) -> Answer {
    call_by(Way::Syscall, number as u64, arguments)
}

/// Makes a request of any number, known to the kernel or not.
///
/// # Errors
/// The kernel's.
#[cfg(target_os = "none")]
pub fn call_by(way: Way, number: u64, [first, second, third]: [u64; 3]) -> Answer {
    let rax: u64;
    // SAFETY: The kernel writes memory only where a request says so, and whoever makes one that does has borrowed that
    // memory. Without `nomem` the compiler has stored what the kernel will read. RAX, RCX and R11 change.
    //
    // CROSSING program -> kernel: the CPU leaves ring 3 inside these instructions and continues behind them.
    unsafe {
        match way {
            Way::Syscall => core::arch::asm!(
                "syscall",
                inlateout("rax") number => rax,
                in("rdi") first, in("rsi") second, in("rdx") third,
                lateout("rcx") _, lateout("r11") _,
                options(nostack),
            ),
            Way::Interrupt => core::arch::asm!(
                "int {vector}",
                vector = const crate::abi::INT,
                inlateout("rax") number => rax,
                in("rdi") first, in("rsi") second, in("rdx") third,
                options(nostack),
            ),
        }
    }
    crate::abi::decode(rax)
}

/// Makes a request; on the host there is no kernel of ours.
///
/// # Errors
/// None: it panics.
#[cfg(not(target_os = "none"))]
pub fn call_by(_way: Way, _number: u64, _arguments: [u64; 3]) -> Answer {
    panic!("{}", crate::NOT_IN_A_PROCESS);
}

/// Ends the process.
pub fn exit(code: u64) -> ! {
    let _ = call(SystemCall::Exit, [code, 0, 0]);
    unreachable!("a process that has ended does not continue")
}

/// Writes all of `bytes` to the console or into a pipe, waiting where there is no room.
///
/// # Errors
/// The kernel's; [`SystemError::Broken`] when nobody will read them.
pub fn write_all(handle: u64, mut bytes: &[u8]) -> Result<(), SystemError> {
    while !bytes.is_empty() {
        let size = bytes.len().min(MAX_TRANSFER as usize);
        let taken = call(SystemCall::Write, [handle, bytes.as_ptr() as u64, size as u64])?;
        bytes = bytes.get(taken as usize..).unwrap_or_default();
    }
    Ok(())
}

/// Reads what there is, at most `buffer`; waits while there is nothing. 0 bytes mean that no more will come.
///
/// # Errors
/// The kernel's.
pub fn read(handle: u64, buffer: &mut [u8]) -> Result<usize, SystemError> {
    let size = buffer.len().min(MAX_TRANSFER as usize);
    call(SystemCall::Read, [handle, buffer.as_mut_ptr() as u64, size as u64]).map(|count| count as usize)
}

/// Closes a handle: the other end of a pipe learns of it.
///
/// # Errors
/// The kernel's.
pub fn close(handle: u64) -> Result<(), SystemError> {
    call(SystemCall::Close, [handle, 0, 0]).map(drop)
}

/// Lets others run. `yield` is a word of Rust's.
pub fn yield_now() {
    let _ = call(SystemCall::Yield, [0; 3]);
}

/// Waits.
pub fn sleep(nanoseconds: u64) {
    let _ = call(SystemCall::Sleep, [nanoseconds, 0, 0]);
}

/// The number of this process.
#[must_use]
pub fn process_id() -> u64 {
    call(SystemCall::ProcessId, [0; 3]).unwrap_or_default()
}

/// The number that the kernel was told to give to this process.
#[must_use]
pub fn argument() -> u64 {
    call(SystemCall::Argument, [0; 3]).unwrap_or_default()
}

/// Nanoseconds since some moment that stays the same.
#[must_use]
pub fn time_ns() -> u64 {
    call(SystemCall::Time, [0; 3]).unwrap_or_default()
}

/// More memory, zeros, for as long as the process lives.
///
/// # Errors
/// The kernel's; [`SystemError::OutOfMemory`].
pub fn grow(size: usize) -> Result<&'static mut [u8], SystemError> {
    let address = call(SystemCall::Grow, [size as u64, 0, 0])?;
    let start = core::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    // SAFETY: The kernel has just mapped these bytes, for this process alone, and gives them to nobody again.
    Ok(unsafe { core::slice::from_raw_parts_mut(start, size) })
}
