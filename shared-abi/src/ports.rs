//! The I/O ports that the machine answers.

/// The debug console. OUT of 1, 2 or 4 bytes prints all of them; IN answers [`DEBUG_CONSOLE_PRESENT`].
///
/// Bochs and QEMU have the same port at the same place ("port E9 hack").
pub const DEBUG_CONSOLE: u16 = 0xE9;
/// What IN from [`DEBUG_CONSOLE`] answers, so that a guest can find out whether the console is there.
pub const DEBUG_CONSOLE_PRESENT: u8 = 0xE9;

/// The end. OUT of 1, 2 or 4 bytes ends the run with that value as [exit code](crate::exit_code).
pub const EXIT: u16 = 0xF4;

/// The hypercall doorbell: OUT of 4 bytes makes the request that the registers hold ([`hypercall`](crate::hypercall)).
///
/// Below 256, so that the port fits into the instruction and no register is spent on it.
pub const HYPERCALL: u16 = 0xE8;

/// A second console port, whose bytes KVM keeps until the next exit once the channel is open ([`channel`](crate::channel)).
pub const CONSOLE_COALESCED: u16 = 0xEA;

/// OUT wakes the host thread that reads the console ring, without an exit to the VMM.
pub const CONSOLE_DOORBELL: u16 = 0xEB;
