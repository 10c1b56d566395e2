//! `Level`: the kinds of tables that a walk meets, and `Paging`: which of them, in which order.
//!
//! x86 has grown four ways to translate (Intel SDM vol. 3A, table 4-1). They share their last steps and little else:
//!
//! ```text
//! 32-bit paging   PD, PT               1024 entries of 4 bytes   since the 80386; PS: 4 MiB, since the Pentium
//! PAE paging      PDPT, PD, PT         4, then 512 of 8 bytes    since the Pentium Pro; PS: 2 MiB
//! four levels     PML4, PDPT, PD, PT   512 entries of 8 bytes    64-bit mode, since the Opteron; PS: 1 GiB, 2 MiB
//! ```
//!
//! (The fourth, five levels for 57-bit addresses, is not walked here.) A PD of 32-bit paging is another thing than one of
//! 64-bit mode, so it is another `Level`, of the same name.

use std::fmt;

use kvm_bindings::kvm_sregs;
use serde::{Serialize, Serializer};
use shared_abi::Gpa;
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};
use x86_64::structures::paging::PageTableFlags as Entry;

use super::ADDRESS_MASK;
use crate::config::PageSize;

/// A kind of table, the top of the longest walk first. Intel SDM vol. 3A, 4.3 to 4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Page-map level 4: CR3 points to it in 64-bit mode.
    Pml4,
    /// Page-directory-pointer table.
    Pdpt,
    /// Page directory.
    Pd,
    /// Page table.
    Pt,
    /// PAE: the four entries that CR3 points to. They grant everything.
    PaePdpt,
    /// PAE: a page directory. As in 64-bit mode, with fewer bits for software.
    PaePd,
    /// PAE: a page table.
    PaePt,
    /// 32-bit paging: the page directory. Its entries may map 4 MiB.
    Pd32,
    /// The same with CR4.PSE = 0: bit 7 means nothing.
    Pd32WithoutPse,
    /// 32-bit paging: a page table.
    Pt32,
}

impl Level {
    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::Pml4,
        Self::Pdpt,
        Self::Pd,
        Self::Pt,
        Self::PaePdpt,
        Self::PaePd,
        Self::PaePt,
        Self::Pd32,
        Self::Pd32WithoutPse,
        Self::Pt32,
    ];

    /// Its name in the manual.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pml4 => "PML4",
            Self::Pdpt | Self::PaePdpt => "PDPT",
            Self::Pd | Self::PaePd | Self::Pd32 | Self::Pd32WithoutPse => "PD",
            Self::Pt | Self::PaePt | Self::Pt32 => "PT",
        }
    }

    /// The lowest bit of a virtual address that this level's index is made of.
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::Pml4 => 39,
            Self::Pdpt | Self::PaePdpt => 30,
            Self::Pd32 | Self::Pd32WithoutPse => 22,
            Self::Pd | Self::PaePd => 21,
            Self::Pt | Self::PaePt | Self::Pt32 => 12,
        }
    }

    /// How many bytes of virtual addresses one entry translates.
    #[must_use]
    pub const fn entry_size(self) -> u64 {
        1 << self.shift()
    }

    /// How many entries a table has.
    #[must_use]
    pub const fn entries(self) -> u64 {
        match self {
            Self::PaePdpt => 4,
            Self::Pd32 | Self::Pd32WithoutPse | Self::Pt32 => 1024,
            _ => 512,
        }
    }

    /// How many bytes an entry has.
    #[must_use]
    pub const fn entry_bytes(self) -> u64 {
        if self.is_32_bit() { 4 } else { 8 }
    }

    /// How many bytes of virtual addresses a table translates.
    #[must_use]
    pub const fn table_size(self) -> u64 {
        self.entry_size() * self.entries()
    }

    /// The level that entries of this one point to.
    #[must_use]
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::Pml4 => Some(Self::Pdpt),
            Self::Pdpt => Some(Self::Pd),
            Self::Pd => Some(Self::Pt),
            Self::PaePdpt => Some(Self::PaePd),
            Self::PaePd => Some(Self::PaePt),
            Self::Pd32 | Self::Pd32WithoutPse => Some(Self::Pt32),
            Self::Pt | Self::PaePt | Self::Pt32 => None,
        }
    }

    /// Whether CR3 may point to it.
    #[must_use]
    pub const fn is_root(self) -> bool {
        matches!(self, Self::Pml4 | Self::PaePdpt | Self::Pd32 | Self::Pd32WithoutPse)
    }

    /// Whether its entries have 32 bits.
    #[must_use]
    pub const fn is_32_bit(self) -> bool {
        matches!(self, Self::Pd32 | Self::Pd32WithoutPse | Self::Pt32)
    }

    /// Whether it belongs to PAE paging.
    #[must_use]
    pub const fn is_pae(self) -> bool {
        matches!(self, Self::PaePdpt | Self::PaePd | Self::PaePt)
    }

    /// The page that the present entry `word` maps; `None` when it points to a table.
    #[must_use]
    pub fn page(self, word: u64) -> Option<PageSize> {
        let is_large = word & Entry::HUGE_PAGE.bits() != 0;
        match self {
            Self::Pt | Self::PaePt | Self::Pt32 => Some(PageSize::Size4K),
            Self::Pd | Self::PaePd => is_large.then_some(PageSize::Size2M),
            Self::Pd32 => is_large.then_some(PageSize::Size4M),
            Self::Pdpt => is_large.then_some(PageSize::Size1G),
            Self::Pml4 | Self::PaePdpt | Self::Pd32WithoutPse => None,
        }
    }

    /// The address in the present entry `word`: of the page that it maps, or of the table that it points to.
    #[must_use]
    pub fn target(self, word: u64) -> Gpa {
        match (self, self.page(word)) {
            // PSE-36: the address bits 39 to 32 stand in bits 20 to 13 (Intel SDM vol. 3A, table 4-4).
            (Self::Pd32, Some(_)) => Gpa((word & 0xFFC0_0000) | (word >> 13 & 0xFF) << 32),
            (_, Some(page)) => Gpa(word & ADDRESS_MASK & !(page.bytes() - 1)),
            (_, None) => Gpa(word & ADDRESS_MASK),
        }
    }

    /// Which of its entries translates `gva`.
    #[must_use]
    #[inline]
    pub const fn index(self, gva: u64) -> u64 {
        gva >> self.shift() & (self.entries() - 1)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Level {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// How a CPU translates virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    /// 32-bit paging; with CR4.PSE a page directory maps pages of 4 MiB.
    Bits32 {
        /// CR4.PSE.
        large_pages: bool,
    },
    /// PAE paging.
    Pae,
    /// The four levels of 64-bit mode.
    FourLevels,
}

impl Paging {
    /// Its tables, in the order of a walk.
    #[must_use]
    pub const fn levels(self) -> &'static [Level] {
        match self {
            Self::Bits32 { large_pages: true } => &[Level::Pd32, Level::Pt32],
            Self::Bits32 { large_pages: false } => &[Level::Pd32WithoutPse, Level::Pt32],
            Self::Pae => &[Level::PaePdpt, Level::PaePd, Level::PaePt],
            Self::FourLevels => &[Level::Pml4, Level::Pdpt, Level::Pd, Level::Pt],
        }
    }

    /// The table that CR3 points to.
    #[must_use]
    pub const fn root(self) -> Level {
        match self {
            Self::Bits32 { large_pages: true } => Level::Pd32,
            Self::Bits32 { large_pages: false } => Level::Pd32WithoutPse,
            Self::Pae => Level::PaePdpt,
            Self::FourLevels => Level::Pml4,
        }
    }

    /// The last table of a whole walk.
    pub(super) const fn last(self) -> Level {
        match self {
            Self::Bits32 { .. } => Level::Pt32,
            Self::Pae => Level::PaePt,
            Self::FourLevels => Level::Pt,
        }
    }
}

/// Page tables: where they start, and how they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTables {
    /// CR3.
    pub cr3: u64,
    /// How the CPU reads them.
    pub paging: Paging,
}

impl PageTables {
    /// Those that a CPU with these registers uses; `None` while paging is off.
    #[must_use]
    pub fn of(special: &kvm_sregs) -> Option<Self> {
        let cr4 = Cr4Flags::from_bits_retain(special.cr4);
        let is_long = special.efer & EferFlags::LONG_MODE_ACTIVE.bits() != 0;
        let paging = if is_long {
            Paging::FourLevels
        } else if cr4.contains(Cr4Flags::PHYSICAL_ADDRESS_EXTENSION) {
            Paging::Pae
        } else {
            Paging::Bits32 { large_pages: cr4.contains(Cr4Flags::PAGE_SIZE_EXTENSION) }
        };
        let is_on = special.cr0 & Cr0Flags::PAGING.bits() != 0;
        is_on.then_some(Self { cr3: special.cr3, paging })
    }

    /// Where the first table lies (Intel SDM vol. 3A, tables 4-3, 4-7 and 4-12).
    #[must_use]
    pub const fn root(self) -> Gpa {
        Gpa(self.cr3
            & match self.paging {
                Paging::Bits32 { .. } => 0xFFFF_F000,
                Paging::Pae => 0xFFFF_FFE0,
                Paging::FourLevels => ADDRESS_MASK,
            })
    }
}

/// A bare CR3 is one of 64-bit mode, where our kernels live.
impl From<u64> for PageTables {
    fn from(cr3: u64) -> Self {
        Self { cr3, paging: Paging::FourLevels }
    }
}
