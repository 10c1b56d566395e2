//! The second KVM: what host and emulated machine say to each other.
//!
//! `cargo xtask run --kvm qemu` boots a distribution's Linux in QEMU, which emulates an AMD CPU with SVM, and runs the
//! VMM there, on that Linux's own `kvm_amd`. One virtio-serial port joins the two: xtask (`xtask/src/qemu/machine.rs`)
//! sends [`Order`]s, the machine's only process (`main.rs`, beside this file) answers with [`Event`]s. [`wire`] has
//! both, and how they become bytes.

pub mod wire;

pub use wire::{Event, Job, Order, Stream};

/// The name of the port, by which the machine finds it in /sys.
pub const PORT: &str = "duet";

/// The argument without which the machine's first process does nothing: whoever starts it by mistake, on a real
/// computer, does not want to see that computer switched off.
pub const CONSENT: &str = "inside-qemu";

/// The folder of the kernel modules in the machine; they are loaded in the order of their names.
pub const MODULES: &str = "/modules";
