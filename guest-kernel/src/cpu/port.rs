//! Port I/O: the `in` and `out` instructions.
//!
//! In a virtual machine each of them is an exit: the CPU leaves the guest, KVM hands port, direction, size and
//! data to the VMM, and the guest goes on behind the instruction.
//!
//! # Why the `options(...)` are what they are
//!
//! In C one writes `asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory")`. Rust's `asm!` has the
//! opposite defaults, so the same meaning is written by *leaving out* options:
//!
//! | C (GCC) | Rust | what it forbids or allows |
//! |---|---|---|
//! | `volatile` | default; `pure` takes it away | With `pure` the compiler may delete an `outb` (it has no outputs) and merge two equal `inb`s into one (it may *cache* the answer). A device sees every access, so: no `pure`. |
//! | clobber `"memory"` | default; `nomem` takes it away | Without the clobber (with `nomem`) the compiler may keep a buffer in registers, or *move* stores to it across the instruction. For one byte in a register that would be correct: the device reads no memory. As a doorbell ("look at my buffer") it would not be, so: no `nomem` here, and one rule for all ports. |
//! | clobber `"cc"` | default; `preserves_flags` takes it away | `in` and `out` change no flag (Intel SDM vol. 2A, IN and OUT), so we say `preserves_flags`, and a comparison before need not be repeated after. |
//! | — (the red zone is GCC's silent risk) | `nostack` | We push nothing, so the compiler need not align the stack for us. |
//!
//! Without `volatile`'s meaning (`pure`): two prints of the same letter may become one, a print whose result
//! nobody uses may vanish. With `nomem`: a print may move before the store it should report. Neither is `volatile`
//! in the sense of an atomic: other CPUs are not ordered by it.

#[cfg(target_os = "none")]
use core::arch::asm;

macro_rules! port_functions {
    ($size:literal, $type:ty, $register:tt, $out:ident, $in:ident) => {
        #[doc = concat!("Writes ", $size, " to `port`.")]
        #[cfg(target_os = "none")]
        #[inline]
        pub fn $out(port: u16, value: $type) {
            // SAFETY: Port I/O touches no memory of ours, and the machine's ports do nothing to it either: the
            // devices the VMM offers answer, print or end the run.
            unsafe {
                asm!(
                    concat!("out dx, ", $register),
                    in("dx") port,
                    in($register) value,
                    options(nostack, preserves_flags),
                );
            }
        }

        #[doc = concat!("Reads ", $size, " from `port`.")]
        #[cfg(target_os = "none")]
        #[inline]
        #[must_use]
        pub fn $in(port: u16) -> $type {
            let value;
            // SAFETY: As for writing: reading a port changes no memory.
            unsafe {
                asm!(
                    concat!("in ", $register, ", dx"),
                    in("dx") port,
                    out($register) value,
                    options(nostack, preserves_flags),
                );
            }
            value
        }

        #[doc = concat!("Writes ", $size, " to `port`; on the host there is no port.")]
        #[cfg(not(target_os = "none"))]
        pub fn $out(_port: u16, _value: $type) {
            panic!("{}", super::NOT_IN_A_MACHINE);
        }

        #[doc = concat!("Reads ", $size, " from `port`; on the host there is no port.")]
        #[cfg(not(target_os = "none"))]
        #[must_use]
        pub fn $in(_port: u16) -> $type {
            panic!("{}", super::NOT_IN_A_MACHINE);
        }
    };
}

port_functions!("one byte", u8, "al", outb, inb);
port_functions!("two bytes", u16, "ax", outw, inw);
port_functions!("four bytes", u32, "eax", outl, inl);

/// Writes all of `bytes` to `port`, one after the other: `rep outsb`.
///
/// One instruction, but no fewer exits: KVM hands over one element at a time.
#[cfg(target_os = "none")]
pub fn rep_outsb(port: u16, bytes: &[u8]) {
    // SAFETY: RSI and RCX describe `bytes`, which the instruction only reads. The direction flag is clear, as the ABI
    // asks at every call (System V AMD64 ABI, 3.2.1).
    unsafe {
        asm!(
            "rep outsb",
            in("dx") port,
            inout("rsi") bytes.as_ptr() => _,
            inout("rcx") bytes.len() => _,
            options(nostack, preserves_flags, readonly),
        );
    }
}

/// Writes all of `bytes` to `port`; on the host there is no port.
#[cfg(not(target_os = "none"))]
pub fn rep_outsb(_port: u16, _bytes: &[u8]) {
    panic!("{}", super::NOT_IN_A_MACHINE);
}
