//! A page walk that keeps its steps: what each entry said, where the walk ended, and why there.
//!
//! It shares every rule with [`Walker`](super::Walker), so that both always agree; a property test compares them.

use std::fmt;

use serde::Serialize;
use shared_abi::{Gpa, Gva};

use super::{ADDRESS_MASK, INDEX_SHIFTS, Leads, Mapping, Rights, WalkError, follow, index, is_canonical};
use crate::config::PageSize;

/// A level of the walk, the top first. Intel SDM vol. 3A, 4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Level {
    /// Page-map level 4: CR3 points to it.
    #[serde(rename = "PML4")]
    Pml4,
    /// Page-directory-pointer table.
    #[serde(rename = "PDPT")]
    Pdpt,
    /// Page directory.
    #[serde(rename = "PD")]
    Pd,
    /// Page table.
    #[serde(rename = "PT")]
    Pt,
}

impl Level {
    /// All levels, in the order of a walk.
    pub const ALL: [Self; 4] = [Self::Pml4, Self::Pdpt, Self::Pd, Self::Pt];

    /// The lowest bit of a virtual address that this level's index is made of.
    #[must_use]
    pub const fn shift(self) -> u32 {
        let [pml4, pdpt, pd, pt] = INDEX_SHIFTS;
        match self {
            Self::Pml4 => pml4,
            Self::Pdpt => pdpt,
            Self::Pd => pd,
            Self::Pt => pt,
        }
    }

    /// How many bytes of virtual addresses one entry translates.
    #[must_use]
    pub const fn entry_size(self) -> u64 {
        1 << self.shift()
    }

    /// The level that entries of this one point to.
    #[must_use]
    pub fn below(self) -> Option<Self> {
        match self {
            Self::Pml4 => Some(Self::Pdpt),
            Self::Pdpt => Some(Self::Pd),
            Self::Pd => Some(Self::Pt),
            Self::Pt => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pml4 => "PML4",
            Self::Pdpt => "PDPT",
            Self::Pd => "PD",
            Self::Pt => "PT",
        })
    }
}

/// One step of a walk: an entry of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkStep {
    /// The table's level.
    pub level: Level,
    /// Where the table lies.
    pub table: Gpa,
    /// Which of its 512 entries.
    pub index: u16,
    /// Where that entry lies.
    pub entry_gpa: Gpa,
    /// The entry, or `None` when it does not lie in RAM.
    pub entry: Option<u64>,
}

impl fmt::Display for WalkStep {
    /// The entry's place, such as `PD[3]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.level, self.index)
    }
}

/// A walk with all its steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalkTrace {
    /// The steps, from the PML4 on: at most four, none for an address that is not canonical.
    pub steps: Vec<WalkStep>,
    /// Where the walk ended: at a page, or early.
    pub end: Result<Mapping, WalkError>,
}

impl WalkTrace {
    /// Why the walk ended where it did, as a clause: `PD[3] not present`, `PT[0] maps a page of 4 KiB`.
    #[must_use]
    pub fn reason(&self) -> String {
        let last = self.steps.last().map(ToString::to_string).unwrap_or_default();
        match self.end {
            Ok(mapping) => format!("{last} maps a page of {}", size_words(mapping.page_size)),
            Err(WalkError::NonCanonical) => "bits 63 to 47 are not all equal".to_owned(),
            Err(WalkError::NotPresent(_)) => format!("{last} not present"),
            Err(WalkError::ReservedBit(_)) => format!("{last} has a reserved bit set"),
            Err(WalkError::TableOutsideRam(_)) => format!("{last} lies outside RAM"),
        }
    }
}

/// A page's size in words.
fn size_words(page_size: PageSize) -> &'static str {
    match page_size {
        PageSize::Size4K => "4 KiB",
        PageSize::Size2M => "2 MiB",
        PageSize::Size1G => "1 GiB",
    }
}

/// Translates `gva` as [`walk`](super::walk) does, and keeps every step.
#[must_use]
pub fn trace(cr3: u64, gva: Gva, read: impl Fn(Gpa) -> Option<u64>) -> WalkTrace {
    let mut steps = Vec::with_capacity(Level::ALL.len());
    let end = steps_into(&mut steps, cr3, gva, read);
    WalkTrace { steps, end }
}

fn steps_into(
    steps: &mut Vec<WalkStep>,
    cr3: u64,
    gva: Gva,
    read: impl Fn(Gpa) -> Option<u64>,
) -> Result<Mapping, WalkError> {
    if !is_canonical(gva) {
        return Err(WalkError::NonCanonical);
    }
    let (mut table, mut rights) = (Gpa(cr3 & ADDRESS_MASK), Rights::ALL);
    for level in Level::ALL {
        let index = index(gva, level.shift());
        let entry_gpa = Gpa(table.0 + index * 8);
        let entry = read(entry_gpa);
        steps.push(WalkStep { level, table, index: index as u16, entry_gpa, entry });
        let word = entry.ok_or(WalkError::TableOutsideRam(entry_gpa))?;
        match follow(gva, level.shift(), entry_gpa, word, rights)? {
            Leads::ToPage(mapping) => return Ok(mapping),
            Leads::ToTable(next, granted) => (table, rights) = (next, granted),
        }
    }
    unreachable!("an entry of the last level maps a page")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::page_walk::walk;

    /// Memory that holds just these words, up to 1 MiB.
    fn memory(words: &[(u64, u64)]) -> impl Fn(Gpa) -> Option<u64> {
        let words = words.to_vec();
        move |gpa| {
            let word = words.iter().find(|(own, _)| *own == gpa.0).map_or(0, |(_, word)| *word);
            (gpa.0 < 1 << 20).then_some(word)
        }
    }

    #[test]
    fn every_end_is_named_with_its_entry() {
        let tables = [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x9003)];
        let read = memory(&tables);
        for (gva, reason) in [
            (0, "PT[0] maps a page of 4 KiB"),
            (0x1000, "PT[1] not present"),
            (3 << 21, "PD[3] not present"),
            (1 << 47, "bits 63 to 47 are not all equal"),
        ] {
            assert_eq!(trace(0x1000, Gva(gva), &read).reason(), reason);
        }
        let read = memory(&[(0x1008, 0x40_0003), (0x1000, 0x83)]);
        assert_eq!(trace(0x1000, Gva(1 << 39), &read).reason(), "PDPT[0] lies outside RAM");
        assert_eq!(trace(0x1000, Gva(0), &read).reason(), "PML4[0] has a reserved bit set");
    }

    #[test]
    fn a_step_tells_where_its_entry_lies() {
        let read = memory(&[(0x1000, 0x2003)]);
        let trace = trace(0x1000, Gva(5 << 30), read);
        let expected = WalkStep {
            level: Level::Pdpt,
            table: Gpa(0x2000),
            index: 5,
            entry_gpa: Gpa(0x2028),
            entry: Some(0),
        };
        assert_eq!(trace.steps.last(), Some(&expected));
    }

    proptest! {
        #[test]
        fn a_trace_ends_where_a_walk_does(
            words in proptest::collection::vec(any::<u64>(), 512),
            cr3 in any::<u64>(),
            gva in any::<u64>(),
        ) {
            // Eight pages of random words, at every address: each walk meets some of them.
            let read = |gpa: Gpa| {
                let word = words.get((gpa.0 >> 3) as usize % words.len())?;
                (!gpa.0.is_multiple_of(7)).then_some(*word | (word >> 40 & 1))
            };
            let gva = Gva((gva.cast_signed() << 16 >> 16).cast_unsigned());
            prop_assert_eq!(trace(cr3, gva, read).end, walk(cr3, gva, read));
        }
    }
}
