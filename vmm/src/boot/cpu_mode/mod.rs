//! The registers a vCPU starts with, in each mode that it can start in.
//!
//! A CPU comes out of reset in real mode, as the 8086 did in 1978, and every later mode is reached from there by steps
//! (Intel SDM vol. 3A, 10.8). KVM lets the host set the *result* of that journey: KVM_SET_SREGS writes control registers,
//! EFER and the hidden parts of the segment registers directly. So a guest's first instruction is one of the mode it is
//! written for, and each file here is a page of the manual: what makes a CPU be in that mode.
//!
//! | mode | since | `CR0` | `CR4` | `EFER` | `CS` | file |
//! |---|---|---|---|---|---|---|
//! | real | 8086, 1978 | | | | base = selector · 16 | [`real`] |
//! | protected | 80386, 1985 | `PE` | | | flat, `D` = 1 | [`protected`] |
//! | 32-bit paging | 80386, 1985 | `PE`, `PG` | `PSE` | | flat, `D` = 1 | [`paged32`] |
//! | PAE | Pentium Pro, 1995 | `PE`, `PG` | `PAE` | `NXE` | flat, `D` = 1 | [`pae`] |
//! | long | Opteron, 2003 | `PE`, `PG` | `PAE` | `LME`, `LMA`, `NXE` | `L` = 1 | [`long`] |
//!
//! The other modes are reached by a guest: `guest-kernel/src/bin/modes/` goes there.
//!
//! A KVM may accept registers and drop bits of them without a word. What was set is therefore read back and
//! compared; a difference is an error that names the register. Long mode alone is never dropped: a KVM on x86-64 without it
//! runs nothing. So the first vCPU need not wait for its registers ([`CpuMode::registers`]): KVM takes them over when it
//! is first entered, which spares the start four ioctls.

mod difference;
pub mod long;
pub mod pae;
pub mod paged32;
pub mod protected;
pub mod real;
mod segment;

use std::fmt;

use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;
use shared_abi::{Gpa, Gva};

pub use long::LongMode;
pub use pae::Pae;
pub use paged32::Paged32;
pub use protected::ProtectedMode;
pub use real::RealMode;

use crate::error::{Error, Result};
use crate::origin::Origin;
use crate::page_walk::Paging;

/// A mode that a guest can start in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartMode {
    /// 16-bit code, as the CPU comes out of reset.
    Real,
    /// 32-bit code without paging.
    Protected,
    /// 32-bit code, two levels of page tables.
    Paged32,
    /// 32-bit code, three levels of page tables.
    Pae,
    /// 64-bit code, four levels of page tables.
    #[default]
    Long,
}

impl StartMode {
    /// All of them, the oldest first.
    pub const ALL: [Self; 5] = [Self::Real, Self::Protected, Self::Paged32, Self::Pae, Self::Long];

    /// Its name, for sentences.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Real => "real mode",
            Self::Protected => "32-bit protected mode",
            Self::Paged32 => "32-bit paging",
            Self::Pae => "PAE paging",
            Self::Long => "long mode",
        }
    }

    /// Where the addresses end at which code can start.
    #[must_use]
    pub const fn reach(self) -> u64 {
        match self {
            Self::Real => 1 << 20,
            Self::Protected | Self::Paged32 | Self::Pae => 1 << 32,
            Self::Long => 1 << 47,
        }
    }

    /// The page tables that the host writes for it; `None` where every address is physical.
    #[must_use]
    pub const fn paging(self) -> Option<Paging> {
        match self {
            Self::Real | Self::Protected => None,
            Self::Paged32 => Some(Paging::Bits32 { large_pages: true }),
            Self::Pae => Some(Paging::Pae),
            Self::Long => Some(Paging::FourLevels),
        }
    }
}

impl fmt::Display for StartMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A mode and the addresses in its registers: all that makes a vCPU start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuMode {
    /// 16-bit code.
    Real(RealMode),
    /// 32-bit code without paging.
    Protected(ProtectedMode),
    /// 32-bit code with two levels of page tables.
    Paged32(Paged32),
    /// 32-bit code with three levels of page tables.
    Pae(Pae),
    /// 64-bit code.
    Long(LongMode),
}

/// The lines that set registers.
#[derive(Clone, Copy, Debug)]
pub struct RegisterOrigins {
    /// Control and segment registers, CR3 among them.
    pub special: Origin,
    /// General registers, RIP and RSP among them.
    pub general: Origin,
}

impl CpuMode {
    /// The start at `entry` in `mode`; `page_tables` is where its tables lie, if it has any.
    #[must_use]
    pub fn new(mode: StartMode, entry: Gva, page_tables: Gpa) -> Self {
        match mode {
            StartMode::Real => Self::Real(RealMode { entry: Gpa(entry.0) }),
            StartMode::Protected => Self::Protected(ProtectedMode { entry: Gpa(entry.0) }),
            StartMode::Paged32 => {
                Self::Paged32(Paged32 { entry_gva: entry, page_directory_gpa: page_tables })
            }
            StartMode::Pae => Self::Pae(Pae { entry_gva: entry, pointer_table_gpa: page_tables }),
            StartMode::Long => Self::Long(LongMode::at_boot(entry, page_tables)),
        }
    }

    /// All registers that a vCPU which was just made needs for this start, if it is one that KVM is known to keep.
    #[must_use]
    pub fn registers(&self) -> Option<(kvm_sregs, kvm_regs)> {
        match self {
            Self::Long(mode) => Some(mode.registers()),
            _ => None,
        }
    }

    /// Sets the vCPU's registers and checks that KVM kept them.
    ///
    /// # Errors
    /// [`Error::Kvm`], or [`Error::RegistersChanged`] when KVM has other values than were set.
    pub fn set(&self, vcpu: &VcpuFd) -> Result<RegisterOrigins> {
        match self {
            Self::Real(mode) => mode.set(vcpu),
            Self::Protected(mode) => mode.set(vcpu),
            Self::Paged32(mode) => mode.set(vcpu),
            Self::Pae(mode) => mode.set(vcpu),
            Self::Long(mode) => mode.set(vcpu),
        }
    }
}

/// Sets all registers and checks that KVM kept them: `sregs` makes the special ones of those after a reset.
fn set(
    vcpu: &VcpuFd,
    mode: StartMode,
    sregs: impl FnOnce(kvm_sregs) -> kvm_sregs,
    regs: &kvm_regs,
) -> Result<RegisterOrigins> {
    let sregs = sregs(vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?);
    let ((), special) = Origin::of(vcpu.set_sregs(&sregs).map_err(Error::kvm("KVM_SET_SREGS"))?);
    let ((), general) = Origin::of(vcpu.set_regs(regs).map_err(Error::kvm("KVM_SET_REGS"))?);

    let kept = vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
    match difference::between(&sregs, &kept) {
        None => Ok(RegisterOrigins { special, general }),
        Some(difference) => {
            Err(Error::RegistersChanged { call: "KVM_SET_SREGS", difference, mode: mode.name() })
        }
    }
}

/// The special registers of the first vCPU after a reset, as far as every mode leaves them as they are: the APIC is on, at
/// its usual place, and this is the CPU that starts the others. Intel SDM vol. 3A, 11.4.4, figure 11-5.
pub(crate) fn reset() -> kvm_sregs {
    const BOOTSTRAP_PROCESSOR: u64 = 1 << 8;
    const ENABLED: u64 = 1 << 11;
    kvm_sregs { apic_base: 0xFEE0_0000 | ENABLED | BOOTSTRAP_PROCESSOR, ..kvm_sregs::default() }
}

/// Bit 1 of RFLAGS is reserved and always 1 (Intel SDM vol. 1, 3.4.3). Interrupts are off.
const RESERVED_RFLAGS: u64 = 1 << 1;
