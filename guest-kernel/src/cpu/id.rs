//! Which CPU this is.
//!
//! A CPU has no register with its number that is read in an instruction. There are four ways around that. CPUID tells
//! the APIC id, and leaves the guest: microseconds. The local APIC tells it, where there is one. Most kernels have the
//! base of GS point to data of the CPU, which `swapgs` then has to exchange on every way in from ring 3 and out again.
//! Here each CPU has a TSS of its own anyway, so it has a task register of its own, and `str` reads that: an
//! instruction that cannot fail, needs no preparation but `ltr`, and that ring 3 cannot change.

use core::fmt;

use shared_abi::BootInfo;

/// How many CPUs a machine has at most.
pub const MAX_CPUS: usize = BootInfo::MAX_VCPUS as usize;

/// The number of a CPU, from 0. It is its APIC id, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuId(u8);

impl CpuId {
    /// The CPU that the machine starts with.
    pub const FIRST: Self = Self(0);

    /// The CPU of this number; `None` where no machine has so many.
    #[must_use]
    pub const fn new(number: usize) -> Option<Self> {
        if number < MAX_CPUS { Some(Self(number as u8)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for CpuId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CPU {}", self.0)
    }
}

/// The CPU that executes this.
#[cfg(target_os = "none")]
#[inline]
#[must_use]
pub fn id() -> CpuId {
    let selector: u64;
    // SAFETY: Reads a register.
    unsafe { core::arch::asm!("str {}", out(reg) selector, options(nomem, nostack, preserves_flags)) };
    super::gdt::cpu_of(selector as u16)
}

/// The CPU that executes this; on the host there is one.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn id() -> CpuId {
    CpuId::FIRST
}
