//! Many CPUs: starting them, giving them work, and keeping them out of each other's way.
//!
//! A machine starts on one CPU ([`CpuId::FIRST`]); the others wait until somebody starts them. The first work for a CPU
//! does that:
//!
//! ```no_run,ignore-none
//! use guest_kernel::prelude::*;
//! use guest_kernel::smp;
//!
//! let halves = smp::cpus().map(|cpu| smp::spawn_on(cpu, move || cpu.number() * 2));
//! let sum: usize = halves.collect::<Vec<_>>().into_iter().map(smp::JoinHandle::join).sum();
//! println!("{sum}");
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | [`work`] | `spawn_on`: a queue for each CPU, and what a CPU does that has nothing to do |
//! | [`start`] | from a CPU that waits to Rust code on a stack of its own |
//! | [`trampoline`] | the way of hardware: from real mode to 64-bit mode |
//! | [`ipi`] | messages between CPUs |
//! | [`shootdown`] | makes all CPUs forget a mapping |
//! | [`per_cpu`] | a value for each CPU |
//!
//! Locks, barriers and the like are in [`sync`](crate::sync).
//!
//! # Two ways to start a CPU
//!
//! On hardware a CPU is started by interrupts: INIT resets it, SIPI has it execute at a page in low memory, in real mode
//! as in 1978, and it must find its way to 64-bit mode alone. That needs a local APIC, and this kernel takes the way in
//! machines that have one. In all others it asks the VMM, which sets the registers of 64-bit mode directly. Either can
//! be chosen by name ([`start::Way`]).
//!
//! The same difference decides what an idle CPU does. With a local APIC it halts until a message comes. Without one
//! nothing could wake it, so to halt is to stop, and the next work starts it anew from the beginning: it had nothing to
//! forget.
//!
//! Host side: `vmm/src/crew.rs` has the threads that are these CPUs.

pub mod ipi;
pub mod per_cpu;
pub mod shootdown;
pub mod start;
pub mod trampoline;
pub mod work;

pub use crate::cpu::{CpuId, MAX_CPUS, id};
pub use per_cpu::PerCpu;
pub use work::{JoinHandle, spawn_on, try_spawn_on};

/// How many CPUs the machine has, whether they were started or not.
#[must_use]
pub fn count() -> usize {
    (crate::boot_info().vcpu_count as usize).clamp(1, MAX_CPUS)
}

/// All CPUs of the machine, the first one first.
pub fn cpus() -> impl Iterator<Item = CpuId> + Clone {
    (0..count()).filter_map(CpuId::new)
}

/// All CPUs but the one that asks.
pub fn others() -> impl Iterator<Item = CpuId> + Clone {
    let own = id();
    cpus().filter(move |&cpu| cpu != own)
}

/// What a CPU does in each turn of a loop that waits for another: it tells the hardware that it waits, and answers who
/// waits for *it*. A program's own waiting loops call this, too.
#[inline]
pub fn relax() {
    shootdown::serve();
    core::hint::spin_loop();
}
