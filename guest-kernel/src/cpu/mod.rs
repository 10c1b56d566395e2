//! The CPU: one hardware thing a file. The library's assembly lives here, in [`boot`](crate::boot) and in
//! [`hypercall`](crate::hypercall).

pub mod halt;
pub mod port;

/// What the host build says when code needs the machine.
#[cfg(not(target_os = "none"))]
pub(crate) const NOT_IN_A_MACHINE: &str =
    "this code runs inside the virtual machine only: start it with `cargo xtask run PROGRAM`";
