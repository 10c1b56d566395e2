//! An entry of a page table: one word that says where the next table or the page is, and what may be done with it.

use core::fmt;

use shared_abi::{Gpa, Gva};

/// What may be done with a page.
///
/// A page that can be written and executed cannot be said: whoever gets something written there could have it executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    access: Access,
    user: bool,
    uncached: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    ReadWrite,
    ReadExecute,
    /// What only the host can make, from an image that asks for it.
    ReadWriteExecute,
}

impl Rights {
    /// Reading.
    pub const READ: Self = Self::new(Access::Read);
    /// Reading and writing.
    pub const READ_WRITE: Self = Self::new(Access::ReadWrite);
    /// Reading and executing.
    pub const READ_EXECUTE: Self = Self::new(Access::ReadExecute);

    const fn new(access: Access) -> Self {
        Self { access, user: false, uncached: false }
    }

    /// The same, for ring 3 too.
    #[must_use]
    pub const fn user(self) -> Self {
        Self { user: true, ..self }
    }

    /// The same, and every access reaches memory: what a device needs. No right, yet it stands beside them.
    #[must_use]
    pub const fn uncached(self) -> Self {
        Self { uncached: true, ..self }
    }

    /// Whether the page can be written.
    #[must_use]
    pub const fn can_write(self) -> bool {
        matches!(self.access, Access::ReadWrite | Access::ReadWriteExecute)
    }

    /// Whether instructions can be fetched from the page.
    #[must_use]
    pub const fn can_execute(self) -> bool {
        matches!(self.access, Access::ReadExecute | Access::ReadWriteExecute)
    }

    /// Whether ring 3 has these rights, too.
    #[must_use]
    pub const fn is_user(self) -> bool {
        self.user
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.access {
            Access::Read => "r--",
            Access::ReadWrite => "rw-",
            Access::ReadExecute => "r-x",
            Access::ReadWriteExecute => "rwx",
        })?;
        f.write_str(if self.user { " user" } else { "" })
    }
}

/// A size of page that can be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
}

impl PageSize {
    /// Bytes of such a page.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.level().entry_size()
    }

    /// Whose entries map such a page.
    pub(super) const fn level(self) -> Level {
        match self {
            Self::Size4K => Level::Pt,
            Self::Size2M => Level::Pd,
        }
    }
}

/// A level of the walk from CR3 to the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Pml4,
    Pdpt,
    Pd,
    Pt,
}

impl Level {
    /// How many bytes one entry covers.
    pub(super) const fn entry_size(self) -> u64 {
        1 << self.shift()
    }

    /// The bits of an address that choose the entry: nine, from here on (Intel SDM vol. 3A, figure 4-8).
    pub(super) const fn index(self, gva: Gva) -> usize {
        (gva.0 >> self.shift()) as usize % super::table::ENTRIES
    }

    /// The level of the tables that entries of this one lead to; `None` for the last.
    pub(super) const fn below(self) -> Option<Self> {
        match self {
            Self::Pml4 => Some(Self::Pdpt),
            Self::Pdpt => Some(Self::Pd),
            Self::Pd => Some(Self::Pt),
            Self::Pt => None,
        }
    }

    const fn shift(self) -> u32 {
        match self {
            Self::Pml4 => 39,
            Self::Pdpt => 30,
            Self::Pd => 21,
            Self::Pt => 12,
        }
    }
}

/// An entry (Intel SDM vol. 3A, tables 4-15 to 4-20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry(pub(super) u64);

impl Entry {
    /// Nothing is mapped.
    pub(super) const NONE: Self = Self(0);

    const PRESENT: u64 = 1 << 0;
    const WRITABLE: u64 = 1 << 1;
    const USER: u64 = 1 << 2;
    const CACHE_DISABLE: u64 = 1 << 4;
    /// `PS`: this entry maps a page, where it could lead to a table.
    const LARGE: u64 = 1 << 7;
    /// The CPU ignores this bit. Here it says that the page is freed with its address space.
    const OWNED: u64 = 1 << 9;
    /// EFER.NXE is set at start.
    const NO_EXECUTE: u64 = 1 << 63;
    const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

    /// Leads to a table. Rights are those of the page: the levels above allow everything (Intel SDM vol. 3A, 4.6).
    pub(super) const fn table(gpa: Gpa, user: bool) -> Self {
        Self(gpa.0 | Self::PRESENT | Self::WRITABLE | if user { Self::USER } else { 0 })
    }

    /// Maps a page.
    pub(super) const fn page(gpa: Gpa, level: Level, rights: Rights) -> Self {
        Self(gpa.0)
            .with_rights(rights)
            .with(Self::PRESENT, true)
            .with(Self::LARGE, !matches!(level, Level::Pt))
    }

    /// The same page with other rights.
    pub(super) const fn with_rights(self, rights: Rights) -> Self {
        self.with(Self::WRITABLE, rights.can_write())
            .with(Self::NO_EXECUTE, !rights.can_execute())
            .with(Self::USER, rights.user)
            .with(Self::CACHE_DISABLE, rights.uncached)
    }

    /// The same page, freed with its address space.
    pub(super) const fn owned(self) -> Self {
        self.with(Self::OWNED, true)
    }

    /// The piece number `index` of a large page, as entries of `level` below map it.
    pub(super) const fn piece(self, index: usize, level: Level) -> Self {
        Self(self.0 + index as u64 * level.entry_size()).with(Self::LARGE, !matches!(level, Level::Pt))
    }

    pub(super) const fn is_present(self) -> bool {
        self.has(Self::PRESENT)
    }

    pub(super) const fn is_owned(self) -> bool {
        self.has(Self::OWNED)
    }

    /// Whether it maps a page, as an entry of a table of `level`.
    pub(super) const fn is_page(self, level: Level) -> bool {
        matches!(level, Level::Pt) || self.has(Self::LARGE)
    }

    /// Where it leads.
    pub(super) const fn gpa(self) -> Gpa {
        Gpa(self.0 & Self::ADDRESS)
    }

    /// What may be done with the page.
    pub(super) const fn rights(self) -> Rights {
        let access = match (self.has(Self::WRITABLE), self.has(Self::NO_EXECUTE)) {
            (false, true) => Access::Read,
            (true, true) => Access::ReadWrite,
            (false, false) => Access::ReadExecute,
            (true, false) => Access::ReadWriteExecute,
        };
        Rights { access, user: self.has(Self::USER), uncached: self.has(Self::CACHE_DISABLE) }
    }

    const fn has(self, bit: u64) -> bool {
        self.0 & bit != 0
    }

    const fn with(self, bit: u64, value: bool) -> Self {
        Self(if value { self.0 | bit } else { self.0 & !bit })
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn an_entry_gives_back_what_it_was_made_of() {
        for rights in
            [Rights::READ, Rights::READ_WRITE, Rights::READ_EXECUTE, Rights::READ_WRITE.user().uncached()]
        {
            let entry = Entry::page(Gpa(0x12_3000), Level::Pt, rights);
            assert_eq!((entry.gpa(), entry.rights(), entry.is_present()), (Gpa(0x12_3000), rights, true));
        }
        assert_eq!(Entry::page(Gpa(0x20_0000), Level::Pd, Rights::READ_WRITE).0, 0x8000_0000_0020_0083);
    }

    #[test]
    fn pieces_of_a_large_page_lie_one_behind_the_other() {
        let large = Entry::page(Gpa(0x4000_0000), Level::Pdpt, Rights::READ_EXECUTE);
        assert_eq!(large.piece(3, Level::Pd), Entry::page(Gpa(0x4060_0000), Level::Pd, Rights::READ_EXECUTE));
        let medium = large.piece(3, Level::Pd);
        assert_eq!(
            medium.piece(511, Level::Pt),
            Entry::page(Gpa(0x407F_F000), Level::Pt, Rights::READ_EXECUTE)
        );
    }

    #[test]
    fn an_address_chooses_an_entry_at_each_level() {
        let gva = Gva(0xFFFF_8000_0000_0000 | 3 << 30 | 4 << 21 | 5 << 12 | 6);
        let indexes = [Level::Pml4, Level::Pdpt, Level::Pd, Level::Pt].map(|level| level.index(gva));
        assert_eq!(indexes, [256, 3, 4, 5]);
    }
}
