//! `PerCpu`: a value for each CPU.
//!
//! A CPU reaches its own without a lock, as no other CPU means that one. Whoever shares it with handlers of its
//! interrupts, or lets others look, has atomics in it: all that is handed out is a shared reference.

use crate::cpu::{CpuId, MAX_CPUS, id};

/// A value for each CPU that a machine may have.
#[derive(Debug)]
pub struct PerCpu<T>([T; MAX_CPUS]);

impl<T> PerCpu<T> {
    /// These values, in the order of the CPUs: `PerCpu::new([const { AtomicU64::new(0) }; MAX_CPUS])`.
    #[must_use]
    pub const fn new(values: [T; MAX_CPUS]) -> Self {
        Self(values)
    }

    /// The value of the CPU that asks. Which one that is may change between this and its use only for a task that moves,
    /// and nothing in this kernel moves by itself.
    #[inline]
    #[must_use]
    pub fn mine(&self) -> &T {
        self.of(id())
    }

    /// The value of `cpu`.
    ///
    /// # Panics
    /// Never: there is one for every number that a CPU can have.
    #[inline]
    #[must_use]
    pub fn of(&self, cpu: CpuId) -> &T {
        &self.0[cpu.number()]
    }

    /// The values of all CPUs that the machine has.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().take(super::count())
    }
}
