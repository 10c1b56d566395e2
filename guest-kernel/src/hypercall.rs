//! Hypercalls: asking the host.
//!
//! The contract, and what each call means, is `shared-abi/src/hypercall.rs`. The host's side is
//! `vmm/src/hypercall/mod.rs`.
//!
//! ```text
//! RAX ◄── number        out 0xE8, eax        RAX ──► 0, or the error
//! RDI, RSI, RDX, R10, R8, R9 ◄── arguments   RDI ──► the answer
//! ```

use shared_abi::hypercall::LogLevel;
pub use shared_abi::hypercall::{Answer, ExitKind, Hypercall, HypercallError, Translation};
use shared_abi::{BootInfo, Gva};

/// Makes a request and gives the host's answer.
#[cfg(target_os = "none")]
#[inline]
pub fn call(request: Hypercall) -> Answer {
    let registers = request.encode();
    // Registers that a call does not use need no loading. The compiler knows the count where it knows the call.
    let (rax, rdi) = match registers.count {
        0 => doorbell!(registers;),
        1 => doorbell!(registers;),
        2 => doorbell!(registers; "rsi" 1),
        3 => doorbell!(registers; "rsi" 1, "rdx" 2),
        _ => doorbell!(registers; "rsi" 1, "rdx" 2, "r10" 3, "r8" 4, "r9" 5),
    };
    shared_abi::hypercall::decode_answer(rax, rdi)
}

/// Rings the doorbell with RAX, RDI and the named registers loaded, and gives RAX and RDI as the host left them.
#[cfg(target_os = "none")]
macro_rules! doorbell {
    ($registers:ident; $($register:tt $index:literal),*) => {{
        let shared_abi::hypercall::Registers { number, arguments, .. } = $registers;
        let (rax, rdi): (u64, u64);
        // SAFETY: The host writes memory only where the request says so, and every request that does is made by a
        // function of this crate that owns the memory for the length of the call. Without `nomem` the compiler has
        // stored what the host will read, and reads anew what the host has written. RAX and RDI are the only
        // registers that change.
        //
        // CROSSING 3, guest -> host: the CPU leaves the guest inside this instruction. The host finds the request in
        // the registers; the guest continues behind it with the answer.
        unsafe {
            core::arch::asm!(
                "out {port}, eax",
                port = const shared_abi::ports::HYPERCALL,
                inlateout("rax") number => rax,
                inlateout("rdi") arguments[0] => rdi,
                $( in($register) arguments[$index], )*
                options(nostack, preserves_flags),
            );
        }
        (rax, rdi)
    }};
}
#[cfg(target_os = "none")]
use doorbell;

/// Makes a request; on the host there is nobody to ask.
#[cfg(not(target_os = "none"))]
pub fn call(_request: Hypercall) -> Answer {
    panic!("{}", crate::cpu::NOT_IN_A_MACHINE);
}

/// Whether the host answers calls. Without a contract the first call would end the run.
#[must_use]
pub fn is_offered() -> bool {
    let info = crate::boot_info();
    info.magic == BootInfo::MAGIC && info.version == BootInfo::VERSION && info.hypercalls != 0
}

/// Where a slice starts, as the contract names it.
#[must_use]
pub(crate) fn gva_of<T>(slice: &[T]) -> Gva {
    Gva(slice.as_ptr() as u64)
}

/// Where a slice starts that the host will write to.
///
/// From a mutable reference: through a shared one the compiler may assume that nothing changes.
#[must_use]
pub(crate) fn gva_of_mut<T>(slice: &mut [T]) -> Gva {
    Gva(slice.as_mut_ptr() as u64)
}

/// Writes to the console, all in one exit.
///
/// # Errors
/// As the host's.
pub fn console_write(text: &[u8]) -> Result<(), HypercallError> {
    call(Hypercall::ConsoleWrite { text_gva: gva_of(text), text_size: text.len() as u64 }).map(drop)
}

/// Reads what was typed, waiting for it. 0 bytes mean the end of the input.
///
/// # Errors
/// As the host's.
pub fn console_read(buffer: &mut [u8]) -> Result<usize, HypercallError> {
    read_console(buffer, true)
}

/// Reads what was typed, if anything was.
///
/// # Errors
/// [`HypercallError::WouldBlock`] when nothing was typed yet.
pub fn console_try_read(buffer: &mut [u8]) -> Result<usize, HypercallError> {
    read_console(buffer, false)
}

fn read_console(buffer: &mut [u8], wait: bool) -> Result<usize, HypercallError> {
    let (buffer_gva, buffer_size) = (gva_of_mut(buffer), buffer.len() as u64);
    loop {
        match call(Hypercall::ConsoleRead { buffer_gva, buffer_size, wait }) {
            // The machine stood still for a while.
            Err(HypercallError::WouldBlock) if wait => {}
            answer => return answer.map(|count| count as usize),
        }
    }
}

/// How many exits this vCPU has had, the one of asking included.
#[must_use]
pub fn exit_count() -> u64 {
    call(Hypercall::ExitCount).unwrap_or_default()
}

/// How many exits of one kind this vCPU has had.
#[must_use]
pub fn exit_count_of(kind: ExitKind) -> u64 {
    call(Hypercall::ExitCountOf { kind }).unwrap_or_default()
}

/// Where an address leads: guest-physical, and in the VMM's own space. `None` when it is not mapped.
#[must_use]
pub fn translate(gva: Gva) -> Option<Translation> {
    let mut translation = Translation::default();
    let answer_gva = Gva((&raw mut translation) as u64);
    call(Hypercall::Translate { gva, answer_gva }).ok().map(|_| translation)
}

/// Fills `buffer` with random bytes fit for keys.
///
/// # Errors
/// As the host's; `TooLarge` above [`MAX_RANDOM_BYTES`](shared_abi::hypercall::MAX_RANDOM_BYTES).
pub fn random_bytes(buffer: &mut [u8]) -> Result<(), HypercallError> {
    let (buffer_gva, buffer_size) = (gva_of_mut(buffer), buffer.len() as u64);
    call(Hypercall::RandomBytes { buffer_gva, buffer_size }).map(drop)
}

/// Nanoseconds since some moment that stays the same for this run; never goes back.
#[must_use]
pub fn monotonic_ns() -> u64 {
    call(Hypercall::MonotonicTime).unwrap_or_default()
}

/// Nanoseconds since 1970-01-01 00:00 UTC, by the host's clock.
#[must_use]
pub fn wall_ns() -> u64 {
    call(Hypercall::WallTime).unwrap_or_default()
}

/// Adds a record to the host's log.
///
/// # Errors
/// As the host's.
pub fn log(level: LogLevel, target: &str, text: &str) -> Result<(), HypercallError> {
    call(Hypercall::Log {
        level,
        target_gva: gva_of(target.as_bytes()),
        target_size: target.len() as u64,
        text_gva: gva_of(text.as_bytes()),
        text_size: text.len() as u64,
    })
    .map(drop)
}
