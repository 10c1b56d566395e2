//! The CPU: one hardware thing a file. The library's assembly lives here, in [`boot`](crate::boot), in
//! [`hypercall`](crate::hypercall) and in [`exceptions`](crate::exceptions).

pub mod apic;
pub mod call_on;
pub mod control;
pub mod cpuid;
pub mod cr3;
pub mod flags;
pub mod gdt;
pub mod halt;
pub mod id;
pub mod idt;
pub mod inner;
pub mod ioapic;
pub mod msr;
pub(crate) mod needs;
pub mod port;
pub mod provoke;
pub mod scan;
pub mod svm;
pub mod tables;
pub mod tsc;
pub mod tss;
pub mod vectors;
pub mod vmx;

pub use id::{CpuId, MAX_CPUS, id};

/// Loads the tables that exceptions need on `cpu`, which is this one: the segments, the double fault's stack, the gates.
/// Once, at its start.
#[cfg(target_os = "none")]
pub(crate) fn load_tables(cpu: CpuId) {
    gdt::load(cpu);
    idt::load();
}

/// What `lgdt` and `lidt` read (Intel SDM vol. 3A, 2.4.1 and 2.4.3).
#[cfg(target_os = "none")]
#[repr(C, packed)]
struct TableRegister {
    /// The last byte of the table.
    limit: u16,
    base: *const u8,
}

// SAFETY: The address is that of a table, and this says nothing about using it.
#[cfg(target_os = "none")]
unsafe impl Sync for TableRegister {}

#[cfg(target_os = "none")]
impl TableRegister {
    const fn new(size: usize, base: *const u8) -> Self {
        Self { limit: (size - 1) as u16, base }
    }
}

/// What the host build says when code needs the machine.
#[cfg(not(target_os = "none"))]
pub(crate) const NOT_IN_A_MACHINE: &str =
    "this code runs inside the virtual machine only: start it with `cargo xtask run PROGRAM`";
