//! All page tables at once: every table that CR3 leads to, every run of pages they map, every entry that is wrong.
//!
//! Pure: it reads tables through a function. The tables may be the guest's own work, and the guest may be hostile: a
//! table that points to itself has 512^4 leaves. So the scan counts what it visits and stops at a limit, and says so.

use serde::Serialize;
use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;
use shared_abi::boot_info::RamRegion;
use x86_64::structures::paging::PageTableFlags as Entry;

use super::rules::{Rules, canonical};
use super::words::{Hex, PageRights, Span};
use crate::memory::GuestMemory;
use crate::page_walk::{Level, PageTables};

/// A page of memory as words: the 512 entries of most tables, or the 1024 of 32-bit paging, two to a word.
pub type Entries = [u64; 512];

/// A table that CR3 leads to. One that is reached in two ways is there twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TablePage {
    /// Its level.
    pub level: Level,
    /// Where it lies.
    pub gpa: Hex,
    /// The virtual addresses that it translates.
    pub gva: Span,
    /// How many of its entries are present.
    pub present: u16,
}

/// Pages of one size and with the same rights, contiguous in both spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MappedRun {
    /// The virtual addresses.
    pub gva: Span,
    /// The first physical address.
    pub gpa: Hex,
    /// Size of each page in bytes.
    pub page_size: u64,
    /// What may be done there.
    pub rights: PageRights,
}

impl MappedRun {
    /// The physical addresses.
    #[must_use]
    pub fn gpa_span(&self) -> Span {
        Span { start: self.gpa.0, size: self.gva.size }
    }

    fn continues_in(&self, next: &Self) -> bool {
        self.page_size == next.page_size
            && self.rights == next.rights
            && self.gva.start.wrapping_add(self.gva.size) == next.gva.start
            && self.gpa.0 + self.gva.size == next.gpa.0
    }
}

/// An entry that ends every walk through it, though it is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BadEntry {
    /// The level of its table.
    pub level: Level,
    /// Which of its table's.
    pub index: u16,
    /// Where it lies; CR3 itself has no place.
    pub entry_gpa: Option<Hex>,
    /// The entry.
    pub entry: Hex,
    /// The virtual addresses that lead through it.
    pub gva: Span,
    /// What is wrong.
    pub fault: EntryFault,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryFault {
    /// These bits are set and must not be.
    ReservedBits(Hex),
    /// The table it points to does not lie in RAM.
    TableOutsideRam,
}

/// What a scan found, in the order of virtual addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The tables.
    pub tables: Vec<TablePage>,
    /// What they map.
    pub runs: Vec<MappedRun>,
    /// Entries that are present and wrong.
    pub bad: Vec<BadEntry>,
    /// How many pages are mapped: of 4 KiB, of 2 MiB (4 MiB in 32-bit paging), of 1 GiB.
    pub pages: [u64; 3],
    /// Why the scan stopped before the end, if it did.
    pub cut: Option<String>,
}

/// How much a scan may find.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tables visited. The largest machine in the smallest pages has 131,330.
    pub tables: usize,
    /// Runs of pages, and wrong entries.
    pub runs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { tables: 140_000, runs: 65_536 }
    }
}

/// What may be done before any table has taken it away.
const EVERYTHING: PageRights = PageRights { writable: true, executable: true, user: true };

impl Scan {
    /// Where paging is off, RAM is mapped to itself, and there are no pages.
    pub(super) fn of_physical(ram: &[RamRegion]) -> Self {
        let ram = ram.iter().filter(|ram| ram.size() > 0);
        let run = |ram: &RamRegion| MappedRun {
            gva: Span::new(ram.start, ram.end),
            gpa: Hex(ram.start),
            page_size: 0,
            rights: EVERYTHING,
        };
        Self { runs: ram.map(run).collect(), ..Self::default() }
    }
}

/// The entry of a table, whose first is at `gpa`, in the page that it lies in.
pub(super) fn entry(page: &Entries, level: Level, gpa: Gpa, index: u64) -> u64 {
    let offset = (gpa.page_offset() + index * level.entry_bytes()) as usize;
    let word = page.get(offset / 8).copied().unwrap_or_default();
    if level.is_32_bit() { word >> (offset % 8 * 8) & 0xFFFF_FFFF } else { word }
}

/// Visits every table that `tables` leads to; `read` gives the page at a GPA, or `None` where that is no RAM.
pub fn scan(
    tables: impl Into<PageTables>,
    rules: Rules,
    limits: Limits,
    read: impl Fn(Gpa) -> Option<Box<Entries>>,
) -> Scan {
    let tables = tables.into();
    let mut scanner = Scanner { rules, limits, read, found: Scan::default() };
    let (level, top) = (tables.paging.root(), tables.root());
    if scanner.table(level, top, 0, EVERYTHING).is_none() {
        let gva = Span { start: 0, size: u64::MAX };
        let bad = BadEntry {
            level,
            index: 0,
            entry_gpa: None,
            entry: Hex(tables.cr3),
            gva,
            fault: EntryFault::TableOutsideRam,
        };
        scanner.found.bad.push(bad);
    }
    scanner.found
}

/// The table at `gpa`, if it lies in RAM.
#[must_use]
pub fn read_table(memory: &GuestMemory, gpa: Gpa) -> Option<Box<Entries>> {
    let mut bytes = [0; PAGE_SIZE as usize];
    memory.read(gpa, &mut bytes).ok()?;
    let mut entries = Box::new([0; 512]);
    for (entry, bytes) in entries.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *entry = u64::from_le_bytes(*bytes);
    }
    Some(entries)
}

struct Scanner<R> {
    rules: Rules,
    limits: Limits,
    read: R,
    found: Scan,
}

impl<R: Fn(Gpa) -> Option<Box<Entries>>> Scanner<R> {
    /// Visits the table at `gpa`, that translates the addresses from `gva`. `None` when it does not lie in RAM.
    fn table(&mut self, level: Level, gpa: Gpa, gva: u64, granted: PageRights) -> Option<()> {
        let page = (self.read)(gpa.page_start())?;
        let entries = || (0..level.entries()).map(|index| entry(&page, level, gpa, index));
        let present = entries().filter(|word| *word & Entry::PRESENT.bits() != 0).count() as u16;
        let span = Span { start: gva, size: level.table_size() };
        self.found.tables.push(TablePage { level, gpa: Hex(gpa.0), gva: span, present });
        for (index, word) in (0u16..).zip(entries()) {
            if word & Entry::PRESENT.bits() == 0 {
                continue;
            }
            if self.found.cut.is_some() {
                break;
            }
            let gva = canonical(gva + u64::from(index) * level.entry_size());
            let place =
                Place { level, index, entry_gpa: gpa.0 + u64::from(index) * level.entry_bytes(), gva };
            self.entry(place, word, granted);
        }
        Some(())
    }

    fn entry(&mut self, place: Place, word: u64, granted: PageRights) {
        let Place { level, gva, .. } = place;
        let reserved = self.rules.reserved_bits(level, word);
        if reserved != 0 {
            return self.bad(place, word, EntryFault::ReservedBits(Hex(reserved)));
        }
        let rights = rights(level, word, granted);
        match level.below() {
            Some(below) if level.page(word).is_none() => {
                if self.found.tables.len() >= self.limits.tables {
                    self.cut(format!("more than {} page tables", self.limits.tables), gva);
                } else if self.table(below, level.target(word), gva, rights).is_none() {
                    self.bad(place, word, EntryFault::TableOutsideRam);
                }
            }
            _ => self.page(level, word, gva, rights),
        }
    }

    fn page(&mut self, level: Level, word: u64, gva: u64, rights: PageRights) {
        let page_size = level.entry_size();
        let gpa = Hex(level.target(word).0);
        let page = MappedRun { gva: Span { start: gva, size: page_size }, gpa, page_size, rights };
        if let Some(count) = self.found.pages.get_mut(page_index(level)) {
            *count += 1;
        }
        let count = self.found.runs.len();
        match self.found.runs.last_mut() {
            Some(last) if last.continues_in(&page) => last.gva.size += page_size,
            _ if count >= self.limits.runs => {
                self.cut(format!("more than {} separate mappings", self.limits.runs), gva);
            }
            _ => self.found.runs.push(page),
        }
    }

    fn bad(&mut self, place: Place, word: u64, fault: EntryFault) {
        let Place { level, index, entry_gpa, gva } = place;
        if self.found.bad.len() >= self.limits.runs {
            return self.cut(format!("more than {} wrong entries", self.limits.runs), gva);
        }
        let gva = Span { start: gva, size: level.entry_size() };
        self.found.bad.push(BadEntry {
            level,
            index,
            entry_gpa: Some(Hex(entry_gpa)),
            entry: Hex(word),
            gva,
            fault,
        });
    }

    fn cut(&mut self, what: String, gva: u64) {
        self.found.cut.get_or_insert(format!("there are {what}: nothing was looked at from GVA {gva:#x} on"));
    }
}

/// What is left of `granted` behind the entry `word`. The top entries of PAE paging take nothing away.
fn rights(level: Level, word: u64, granted: PageRights) -> PageRights {
    if level == Level::PaePdpt {
        return granted;
    }
    PageRights {
        writable: granted.writable && word & Entry::WRITABLE.bits() != 0,
        executable: granted.executable && word & Entry::NO_EXECUTE.bits() == 0,
        user: granted.user && word & Entry::USER_ACCESSIBLE.bits() != 0,
    }
}

/// Where an entry stands.
#[derive(Clone, Copy)]
struct Place {
    level: Level,
    index: u16,
    entry_gpa: u64,
    gva: u64,
}

/// Which count of [`Scan::pages`] is of this level's pages.
fn page_index(level: Level) -> usize {
    match level {
        Level::Pml4 | Level::Pt | Level::PaePt | Level::Pt32 => 0,
        Level::Pd | Level::PaePd | Level::Pd32 | Level::Pd32WithoutPse => 1,
        Level::Pdpt | Level::PaePdpt => 2,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::page_walk::walk;
    use shared_abi::Gva;

    /// Tables one behind the other from 0x1000; all other memory, up to 1 MiB, is zero.
    pub(in crate::explain) fn memory(
        tables: &[&[(usize, u64)]],
    ) -> impl Fn(Gpa) -> Option<Box<Entries>> + use<> {
        let pages: Vec<Box<Entries>> = tables
            .iter()
            .map(|entries| {
                let mut page = Box::new([0; 512]);
                for (index, word) in *entries {
                    page[*index] = *word;
                }
                page
            })
            .collect();
        move |gpa| {
            let page = (gpa.0 / 0x1000) as usize;
            (gpa.0 < 1 << 20).then(|| pages.get(page.wrapping_sub(1)).cloned().unwrap_or(Box::new([0; 512])))
        }
    }

    #[test]
    fn neighbouring_pages_with_equal_rights_are_one_run() {
        let pt: Vec<_> =
            (0..8).map(|page| (page, (page as u64) << 12 | if page == 5 { 1 } else { 3 })).collect();
        let read = memory(&[&[(0, 0x2003)], &[(0, 0x3003)], &[(0, 0x4003), (1, 0x20_0083)], &pt]);
        let found = scan(0x1000, Rules::WIDEST, Limits::default(), read);
        let runs: Vec<_> =
            found.runs.iter().map(|run| (run.gva.to_string(), run.rights.to_string())).collect();
        let expected = [
            ("0x0..0x5000", "rwx"),
            ("0x5000..0x6000", "r-x"),
            ("0x6000..0x8000", "rwx"),
            ("0x200000..0x400000", "rwx"),
        ];
        assert_eq!(runs, expected.map(|(gva, rights)| (gva.to_owned(), rights.to_owned())));
        assert_eq!((found.pages, found.tables.len(), found.cut), ([8, 1, 0], 4, None));
    }

    #[test]
    fn a_table_that_points_to_itself_ends_the_scan_in_time() {
        let full: Vec<_> = (0..512).map(|index| (index, 0x1003)).collect();
        let start = std::time::Instant::now();
        let found = scan(0x1000, Rules::WIDEST, Limits::default(), memory(&[&full]));
        assert!(found.cut.expect("it is cut").contains("nothing was looked at from GVA"));
        assert!(found.tables.len() <= Limits::default().tables);
        assert!(found.runs.len() <= Limits::default().runs);
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn the_upper_half_is_canonical() {
        let read = memory(&[&[(511, 0x2003)], &[(511, 0x83)]]);
        let found = scan(0x1000, Rules::WIDEST, Limits::default(), read);
        let run = found.runs.first().expect("mapped");
        assert_eq!(run.gva.to_string(), "0xffffffffc0000000..0x10000000000000000");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_scan_of_random_tables_agrees_with_walks(
            words in proptest::collection::vec(any::<u64>(), 64),
            cr3 in any::<u64>(),
            flags in proptest::collection::vec(any::<bool>(), 64),
        ) {
            // Few entries are present, and their tables lie among sixteen pages.
            let table = |gpa: Gpa| {
                let page = (gpa.0 >> 12) as usize;
                (page % 17 != 16).then(|| {
                    let mut entries = Box::new([0; 512]);
                    for (index, entry) in entries.iter_mut().enumerate().step_by(37) {
                        let chosen = (page * 31 + index) % 64;
                        let present = u64::from(flags[chosen]);
                        *entry = words[chosen] & !(0xF000 << 32) & !1 | present;
                    }
                    entries
                })
            };
            let limits = Limits { tables: 3000, runs: 3000 };
            let found = scan(cr3, Rules::WIDEST, limits, table);
            prop_assert!(found.tables.len() <= limits.tables && found.runs.len() <= limits.runs);
            let read = |gpa: Gpa| table(Gpa(gpa.0 & !0xFFF)).map(|page| page[(gpa.0 as usize & 0xFFF) / 8]);
            for run in found.runs.iter().take(200) {
                for gva in [run.gva.start, run.gva.start + (run.gva.size - 1)] {
                    let mapping = walk(cr3, Gva(gva), read).expect("the scan found it mapped");
                    prop_assert_eq!(mapping.gpa.0, run.gpa.0 + (gva - run.gva.start));
                    prop_assert_eq!(PageRights::from(&mapping), run.rights);
                    prop_assert_eq!(mapping.page_size.bytes(), run.page_size);
                }
            }
        }
    }
}
