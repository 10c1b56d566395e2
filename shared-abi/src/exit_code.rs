//! What a guest may say when it ends.
//!
//! A guest that writes a code to [`ports::EXIT`](crate::ports::EXIT), or calls
//! [`Hypercall::Exit`](crate::Hypercall::Exit), ends the run. Codes 0 to [`LAST`] are the
//! program's own. [`PANICKED`] is how the panic handler says that it ran. Others do not fit the table of process
//! exit codes in `vmm --help`, so the VMM reports [`LAST`] for them and says so.

/// The program did what it wanted.
pub const SUCCESS: u32 = 0;
/// The largest code a program may choose.
pub const LAST: u32 = 99;
/// The guest kernel panicked.
pub const PANICKED: u32 = 101;
