//! All that page tables map: runs of virtual addresses that lead to consecutive physical ones with the same rights.
//!
//! The tables are the guest's, and a table may be an entry of itself: four pages can claim to map 256 TiB. So a scan
//! reads no more tables and keeps no more runs than its limits say, and tells when it was cut.

use shared_abi::{Gpa, Gva};

use super::{ADDRESS_MASK, INDEX_SHIFTS, Leads, Mapping, Rights, follow};

/// Consecutive virtual addresses, mapped to consecutive physical ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it starts, and its rights. The page size is the first page's; others may follow.
    pub mapping: Mapping,
    /// The first virtual address.
    pub gva: Gva,
    /// Size in bytes.
    pub size: u64,
}

/// What a scan of page tables found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// The runs, in the order of virtual addresses as entries have it: the lower half first.
    pub runs: Vec<Run>,
    /// Whether a limit ended the scan before all tables were read.
    pub is_cut: bool,
}

/// How far a scan goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanLimits {
    /// Tables read, however often they are the same.
    pub tables: u32,
    /// Runs kept.
    pub runs: usize,
}

impl ScanLimits {
    /// Twice the tables of 256 GiB in pages of 4 KiB, the largest machine there is; and as many runs as an ELF file has
    /// segments.
    pub const DEFAULT: Self = Self { tables: 1 << 18, runs: 0xFFFF };
}

/// The words of a table.
pub type TableWords = [u64; 512];

/// Finds all that the tables behind CR3 map; `read` gives the words of the table at a GPA, or `None` outside RAM.
///
/// Entries with reserved bits set map nothing, as a CPU would find.
#[must_use]
pub fn runs(cr3: u64, limits: ScanLimits, read: impl Fn(Gpa) -> Option<TableWords>) -> Runs {
    let mut scan = Scan { read, limits, tables: 0, found: Runs::default() };
    scan.table(Gpa(cr3 & ADDRESS_MASK), &INDEX_SHIFTS, 0, Rights::ALL);
    scan.found
}

struct Scan<R> {
    read: R,
    limits: ScanLimits,
    tables: u32,
    found: Runs,
}

impl<R: Fn(Gpa) -> Option<TableWords>> Scan<R> {
    /// Scans a table whose entries translate from `start`; `shifts` are those of its own level and the ones below.
    fn table(&mut self, table: Gpa, shifts: &[u32], start: u64, rights: Rights) {
        let Some((&shift, below)) = shifts.split_first() else { return };
        if self.tables == self.limits.tables {
            self.found.is_cut = true;
            return;
        }
        self.tables += 1;
        let Some(words) = (self.read)(table) else { return };
        for (index, &word) in (0..).zip(&words) {
            if self.found.is_cut {
                return;
            }
            let gva = canonical(start | index << shift);
            match follow(gva, shift, Gpa(table.0 + index * 8), word, rights) {
                Ok(Leads::ToPage(mapping)) => self.add(gva, mapping),
                Ok(Leads::ToTable(next, granted)) => self.table(next, below, gva.0, granted),
                Err(_) => {}
            }
        }
    }

    /// Adds a page: to the last run when it continues it, else as a new one.
    fn add(&mut self, gva: Gva, mapping: Mapping) {
        let size = mapping.page_size.bytes();
        if let Some(last) = self.found.runs.last_mut().filter(|last| last.is_continued_by(gva, &mapping)) {
            last.size += size;
        } else if self.found.runs.len() < self.limits.runs {
            self.found.runs.push(Run { mapping, gva, size });
        } else {
            self.found.is_cut = true;
        }
    }
}

impl Run {
    fn is_continued_by(&self, gva: Gva, next: &Mapping) -> bool {
        let rights = |mapping: &Mapping| (mapping.writable, mapping.executable, mapping.user);
        self.gva.checked_add(self.size) == Some(gva)
            && self.mapping.gpa.checked_add(self.size) == Some(next.gpa)
            && rights(&self.mapping) == rights(next)
    }
}

/// Copies bit 47 into the bits above it, as the CPU wants addresses (Intel SDM vol. 1, 3.3.7.1).
fn canonical(gva: u64) -> Gva {
    Gva(((gva << 16).cast_signed() >> 16).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PageSize;

    /// Memory that holds just these words.
    fn memory(words: &[(u64, u64)]) -> impl Fn(Gpa) -> Option<TableWords> {
        let words = words.to_vec();
        move |table| {
            let mut read = [0; 512];
            for (gpa, word) in &words {
                if let Some(place) =
                    gpa.checked_sub(table.0).and_then(|offset| read.get_mut(offset as usize / 8))
                {
                    *place = *word;
                }
            }
            Some(read)
        }
    }

    #[test]
    fn pages_that_continue_each_other_are_one_run() {
        let tables = [
            (0x1000, 0x2003), // PML4[0]
            (0x1FF8, 0x2003), // PML4[511]: the same again at the top
            (0x2000, 0x3003),
            (0x3000, 0x4003),   // PD[0] -> PT
            (0x3008, 0x200083), // PD[1]: 2 MiB at 2 MiB
            (0x4008, 0x9003),   // PT[1], PT[2]: consecutive
            (0x4010, 0xA003),
            (0x4018, 0xB001),    // PT[3]: read-only
            (0x4FF8, 0x1FF_003), // PT[511]: continued by PD[1]
        ];
        let found = runs(0x1000, ScanLimits::DEFAULT, memory(&tables));

        let seen: Vec<_> = found
            .runs
            .iter()
            .map(|run| (run.gva.0, run.mapping.gpa.0, run.size, run.mapping.writable))
            .collect();
        let top = 0xFFFF_FF80_0000_0000;
        let half = |base: u64| {
            [
                (base + 0x1000, 0x9000, 0x2000, true),
                (base + 0x3000, 0xB000, 0x1000, false),
                (base + 0x1F_F000, 0x1F_F000, 0x1000 + PageSize::Size2M.bytes(), true),
            ]
        };
        assert_eq!(seen, [half(0), half(top)].concat());
        assert!(!found.is_cut);
    }

    #[test]
    fn a_table_that_is_an_entry_of_itself_is_cut_at_the_limit() {
        let limits = ScanLimits { tables: 1000, runs: 100 };
        let found = runs(0x1000, limits, |_| Some([0x1003; 512]));
        assert_eq!((found.runs.len(), found.is_cut), (100, true));

        let empty = runs(0x1000, limits, |_| Some([0; 512]));
        assert_eq!(empty, Runs::default());
    }

    #[test]
    fn many_tables_without_a_page_are_cut_too() {
        let limits = ScanLimits { tables: 1000, runs: 100 };
        // Level by level: each entry leads to the next page, and the last level is empty.
        let read = |table: Gpa| Some(if table.0 < 0x4000 { [table.0 + 0x1000 | 3; 512] } else { [0; 512] });
        assert_eq!(runs(0x1000, limits, read), Runs { runs: Vec::new(), is_cut: true });
    }
}
