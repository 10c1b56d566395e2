//! `TableTree`: the page tables as a tree, with runs of like entries folded into one, and never too large to show.

use serde::Serialize;
use shared_abi::Gpa;
use x86_64::structures::paging::PageTableFlags as Entry;

use super::moment::Moment;
use super::rules::{Rules, canonical};
use super::tables::{Entries, entry, read_table};
use super::words::{Hex, Span};
use crate::page_walk::Level;
use crate::vm::Vm;

/// The tables that CR3 leads to.
#[derive(Clone, Debug, Serialize)]
pub struct TableTree {
    /// [`VERSION`](super::VERSION) of the form.
    pub version: u32,
    /// Which tables these are.
    pub moment: Moment,
    /// The table that CR3 points to; `None` when it does not lie in RAM, or paging is off.
    pub root: Option<TableNode>,
    /// Whether something was left out because there is too much.
    pub is_cut: bool,
}

/// A table and what its present entries lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableNode {
    /// Its level.
    pub level: Level,
    /// Where it lies.
    pub gpa: Hex,
    /// The virtual addresses that it translates.
    pub gva: Span,
    /// Its entries that are present, in order; like ones side by side are one.
    pub entries: Vec<EntryRun>,
}

/// Entries side by side: one, or several that map pages in a row with the same bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryRun {
    /// The first one's index.
    pub index: u16,
    /// How many there are.
    pub count: u16,
    /// The first one.
    pub entry: Hex,
    /// The virtual addresses of all.
    pub gva: Span,
    /// Where they lead.
    pub leads: EntryLeads,
}

/// Where an entry leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryLeads {
    /// To pages of this size in bytes; `gpa` is the first one's.
    Pages {
        /// The first physical address.
        gpa: Hex,
        /// Size of each in bytes.
        page_size: u64,
    },
    /// To a table.
    Table(TableNode),
    /// To a table that was left out, because the tree is large enough.
    LeftOut(Hex),
    /// To a table where no RAM is.
    OutsideRam(Hex),
    /// Nowhere: these bits must be 0.
    ReservedBits(Hex),
}

/// A tree has at most so many runs of entries. What a person can look at is far less.
const MAX_RUNS: usize = 4096;

impl TableTree {
    /// The tables of `moment`.
    #[must_use]
    pub fn of(vm: &Vm, moment: Moment) -> Self {
        Self::read(moment, |gpa| read_table(vm.memory(), gpa))
    }

    fn read(moment: Moment, read: impl Fn(Gpa) -> Option<Box<Entries>>) -> Self {
        let mut planter = Planter { rules: moment.rules(), read, runs: 0, is_cut: false };
        let root = moment.tables().and_then(|tables| planter.table(tables.paging.root(), tables.root(), 0));
        Self { version: super::VERSION, moment, root, is_cut: planter.is_cut }
    }
}

struct Planter<R> {
    rules: Rules,
    read: R,
    runs: usize,
    is_cut: bool,
}

impl<R: Fn(Gpa) -> Option<Box<Entries>>> Planter<R> {
    fn table(&mut self, level: Level, gpa: Gpa, gva: u64) -> Option<TableNode> {
        let page = (self.read)(gpa.page_start())?;
        let entries = (0..level.entries()).map(|index| entry(&page, level, gpa, index));
        let span = Span { start: gva, size: level.table_size() };
        let mut node = TableNode { level, gpa: Hex(gpa.0), gva: span, entries: Vec::new() };
        for (index, word) in (0u16..).zip(entries) {
            if word & Entry::PRESENT.bits() == 0
                || node.entries.last_mut().is_some_and(|last| last.take(level, index, word))
            {
                continue;
            }
            if self.runs >= MAX_RUNS {
                self.is_cut = true;
                break;
            }
            self.runs += 1;
            let gva = canonical(gva + u64::from(index) * level.entry_size());
            let leads = self.leads(level, word, gva);
            let gva = Span { start: gva, size: level.entry_size() };
            node.entries.push(EntryRun { index, count: 1, entry: Hex(word), gva, leads });
        }
        Some(node)
    }

    fn leads(&mut self, level: Level, word: u64, gva: u64) -> EntryLeads {
        let reserved = self.rules.reserved_bits(level, word);
        if reserved != 0 {
            return EntryLeads::ReservedBits(Hex(reserved));
        }
        let target = level.target(word);
        match level.below() {
            Some(_) if level.page(word).is_none() && self.runs >= MAX_RUNS => {
                self.is_cut = true;
                EntryLeads::LeftOut(Hex(target.0))
            }
            Some(below) if level.page(word).is_none() => self
                .table(below, target, gva)
                .map_or(EntryLeads::OutsideRam(Hex(target.0)), EntryLeads::Table),
            _ => EntryLeads::Pages { gpa: Hex(target.0), page_size: level.entry_size() },
        }
    }
}

impl EntryRun {
    /// Takes the entry `word` into the run, if it continues it.
    fn take(&mut self, level: Level, index: u16, word: u64) -> bool {
        let expected = self.entry.0.wrapping_add(u64::from(self.count) * level.entry_size());
        let continues = matches!(self.leads, EntryLeads::Pages { .. })
            && index == self.index + self.count
            && word == expected;
        if continues {
            self.count += 1;
            self.gva.size += level.entry_size();
        }
        continues
    }
}

#[cfg(test)]
mod tests {
    use super::super::moment::When;
    use super::super::tables::tests::memory;
    use super::*;

    fn tree(tables: &[&[(usize, u64)]]) -> TableTree {
        let moment = Moment {
            when: When::Start,
            vcpu: None,
            cr3: Hex(0x1000),
            note: None,
            rules: None,
            tables: Some(0x1000.into()),
        };
        TableTree::read(moment, memory(tables))
    }

    #[test]
    fn pages_in_a_row_are_one_run() {
        let pt: Vec<_> = (0..16).map(|page| (page + 4, (page as u64) << 12 | 3)).collect();
        let tree = tree(&[&[(0, 0x2003)], &[(0, 0x3003), (1, 0x4000_0003)], &[(0, 0x4003)], &pt]);
        let root = tree.root.expect("in RAM");
        let EntryLeads::Table(pdpt) = &root.entries[0].leads else { panic!("{root:?}") };
        assert_eq!(pdpt.entries[1].leads, EntryLeads::OutsideRam(Hex(0x4000_0000)));
        let EntryLeads::Table(pd) = &pdpt.entries[0].leads else { panic!("{pdpt:?}") };
        let EntryLeads::Table(pt) = &pd.entries[0].leads else { panic!("{pd:?}") };
        assert_eq!(pt.entries.len(), 1);
        assert_eq!(
            (pt.entries[0].index, pt.entries[0].count, pt.entries[0].gva.to_string()),
            (4, 16, "0x4000..0x14000".into())
        );
        assert!(!tree.is_cut);
    }

    #[test]
    fn a_table_that_points_to_itself_is_cut() {
        let full: Vec<_> = (0..512).map(|index| (index, 0x1003)).collect();
        let tree = tree(&[&full]);
        assert!(tree.is_cut);
        assert!(serde_json::to_string(&tree).expect("JSON").len() < 4 << 20);
    }
}
