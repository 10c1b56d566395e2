//! A page walk that keeps its steps: what each entry said, where the walk ended, and why there.
//!
//! It shares every rule with [`Walker`](super::Walker), so that both always agree; a property test compares them.

use std::fmt;

use shared_abi::{Gpa, Gva};

use super::{
    Leads, Level, Mapping, PageTables, Paging, Rights, WalkError, entry_gpa, follow, is_translated,
    read_entry,
};
use crate::config::PageSize;

/// One step of a walk: an entry of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkStep {
    /// The table's level.
    pub level: Level,
    /// Where the table lies.
    pub table: Gpa,
    /// Which of its entries.
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
    /// How the tables were read.
    pub paging: Paging,
    /// The steps, from where CR3 points on: at most four, none for an address that is not canonical.
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
            Err(WalkError::NonCanonical) if self.paging == Paging::FourLevels => {
                "bits 63 to 47 are not all equal".to_owned()
            }
            Err(WalkError::NonCanonical) => "the address has more than 32 bits".to_owned(),
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
        PageSize::Size4M => "4 MiB",
        PageSize::Size1G => "1 GiB",
    }
}

/// Translates `gva` as [`walk`](super::walk) does, and keeps every step.
#[must_use]
pub fn trace(tables: impl Into<PageTables>, gva: Gva, read: impl Fn(Gpa) -> Option<u64>) -> WalkTrace {
    let tables = tables.into();
    let mut steps = Vec::with_capacity(tables.paging.levels().len());
    let end = steps_into(&mut steps, tables, gva, read);
    WalkTrace { paging: tables.paging, steps, end }
}

fn steps_into(
    steps: &mut Vec<WalkStep>,
    tables: PageTables,
    gva: Gva,
    read: impl Fn(Gpa) -> Option<u64>,
) -> Result<Mapping, WalkError> {
    if !is_translated(tables.paging, gva) {
        return Err(WalkError::NonCanonical);
    }
    let (mut level, mut table, mut rights) = (tables.paging.root(), tables.root(), Rights::ALL);
    loop {
        let entry_gpa = entry_gpa(level, table, gva);
        let entry = read_entry(level, entry_gpa, &read);
        steps.push(WalkStep { level, table, index: level.index(gva.0) as u16, entry_gpa, entry });
        let word = entry.ok_or(WalkError::TableOutsideRam(entry_gpa))?;
        match follow(gva, level, entry_gpa, word, rights)? {
            Leads::ToPage(mapping) => return Ok(mapping),
            Leads::ToTable(below, next, granted) => (level, table, rights) = (below, next, granted),
        }
    }
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
