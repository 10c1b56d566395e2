//! The memory map and the tree of page tables, as the page shows them.

use super::page::{Branch, Leaf, Map, Region, Tables, TreeStep};
use crate::explain::{
    EntryLeads, EntryRun, MemoryMap, PageRights, Purpose, Row, Scan, TableNode, TableTree, size,
};

/// Rows of a map that are shown.
pub(super) const MAX_ROWS: usize = 1000;
/// Findings that are shown.
const MAX_FINDINGS: usize = 50;

/// The map, drawn and as a table.
pub(super) fn map(map: &MemoryMap, is_cut: bool, ram: u64) -> Map {
    let lead = format!(
        "{} of RAM as the guest left it: what lies where, where it is mapped, what the guest may do there, and the \
         line of the host that placed it.",
        size(ram)
    );
    let end =
        map.rows.iter().filter(|row| row.hva.is_some()).map(|row| row.gpa.end()).max().unwrap_or_default();
    let mut note = map.moment.note.clone().into_iter().chain(map.cut.clone()).collect::<Vec<_>>();
    if is_cut {
        note.push(format!("only the first {MAX_ROWS} rows are here: “vmm map --at-stop” has all"));
    }
    Map {
        lead,
        note: note.join("; "),
        findings: map.findings.iter().take(MAX_FINDINGS).map(|finding| finding.text.clone()).collect(),
        regions: map.rows.iter().map(|row| region(row, end)).collect(),
    }
}

/// A row; addresses behind `end` have no RAM, and are not drawn.
fn region(row: &Row, end: u64) -> Region {
    let hex = |span: Option<crate::explain::Span>| {
        span.map(|span| format!("{:#x}", span.start)).unwrap_or_default()
    };
    Region {
        name: row.what.clone(),
        class: class(row),
        drawn: if row.gpa.end() <= end { "yes" } else { "no" },
        start: format!("{:#x}", row.gpa.start),
        bytes: row.size,
        gva: hex(row.gva),
        size: size(row.size),
        rights: row.rights.map_or("---".to_owned(), |rights| rights.to_string()),
        hva: hex(row.hva),
        origin: row.placed_at.map(|origin| origin.to_string()).unwrap_or_default(),
    }
}

/// The colour of a row.
fn class(row: &Row) -> &'static str {
    match row.purpose {
        Purpose::NullPage | Purpose::StackGuard | Purpose::FaultStackGuard => "guard",
        Purpose::NmiStackGuard | Purpose::MachineCheckStackGuard => "guard",
        Purpose::BootInfo => "boot",
        Purpose::Arguments => "arguments",
        Purpose::Stack | Purpose::FaultStack | Purpose::NmiStack | Purpose::MachineCheckStack => "stack",
        Purpose::PageTable => "tables",
        Purpose::Image if row.rights.is_some_and(|rights| rights.executable) => "image",
        Purpose::Image if row.rights.is_some_and(|rights| rights.writable) => "data",
        Purpose::Image => "rodata",
        Purpose::UnusedPageTable | Purpose::Free => "free",
        Purpose::NoRam | Purpose::Hole | Purpose::Device | Purpose::BeyondRam => "hole",
    }
}

/// The tree, table by table.
pub(super) fn tables(tree: &TableTree, scan: &Scan) -> Tables {
    let [small, medium, large] = scan.pages;
    let is_32_bit = tree.root.as_ref().is_some_and(|root| root.level.is_32_bit());
    let large_page = if is_32_bit { "4 MiB" } else { "2 MiB" };
    let lead = format!(
        "What CR3 leads to: {} tables of 4 KiB, {small} pages of 4 KiB, {medium} of {large_page}, {large} of 1 GiB. Entries \
         side by side that map pages in a row are one line.",
        scan.tables.len()
    );
    let mut note = tree.moment.note.clone().into_iter().chain(scan.cut.clone()).collect::<Vec<_>>();
    if tree.is_cut {
        note.push("there are more entries than are here".to_owned());
    }
    let mut steps = Vec::new();
    match &tree.root {
        Some(root) => open(&mut steps, "CR3".to_owned(), root, EVERYTHING),
        None if tree.moment.tables().is_none() => {}
        None => note.push(format!("CR3 is {}, where no RAM is", tree.moment.cr3)),
    }
    Tables { lead, note: note.join("; "), steps }
}

/// What the first level has to take away from.
const EVERYTHING: PageRights = PageRights { writable: true, executable: true, user: true };

/// An entry that leads to `table`, and what is in that. A tree has four levels, so this goes four deep.
fn open(steps: &mut Vec<TreeStep>, entry: String, table: &TableNode, granted: PageRights) {
    let present: u64 = table.entries.iter().map(|run| u64::from(run.count)).sum();
    let entries = if present == 1 { "entry" } else { "entries" };
    steps.push(TreeStep::Open(Branch {
        entry,
        gva: table.gva.to_string(),
        leads: format!("→ {} at {}", table.level, table.gpa),
        note: format!("{present} {entries} present"),
        table: table.gpa.to_string(),
        open: table.level.below().is_some(),
    }));
    for run in &table.entries {
        let entry = match run.count {
            1 => format!("{}[{}]", table.level, run.index),
            count => format!("{}[{}–{}]", table.level, run.index, run.index + count - 1),
        };
        let rights = rights(run, granted);
        match &run.leads {
            EntryLeads::Table(below) => open(steps, entry, below, rights),
            leads => steps.push(TreeStep::Leaf(leaf(entry, run, leads, rights))),
        }
    }
    steps.push(TreeStep::Close);
}

/// What an entry leaves of the rights that the entries above it have granted.
fn rights(run: &EntryRun, granted: PageRights) -> PageRights {
    use x86_64::structures::paging::PageTableFlags as Entry;
    let has = |flag: Entry| run.entry.0 & flag.bits() != 0;
    PageRights {
        writable: granted.writable && has(Entry::WRITABLE),
        executable: granted.executable && !has(Entry::NO_EXECUTE),
        user: granted.user && has(Entry::USER_ACCESSIBLE),
    }
}

fn leaf(entry: String, run: &EntryRun, leads: &EntryLeads, rights: PageRights) -> Leaf {
    let (gva, gva_start) = (run.gva.to_string(), format!("{:#x}", run.gva.start));
    let wrong = |leads: String, wrong| Leaf {
        entry: entry.clone(),
        gva: gva.clone(),
        leads,
        note: format!("the entry is {}", run.entry),
        gva_start: gva_start.clone(),
        gpa_start: "0x0".to_owned(),
        wrong,
        ..Leaf::default()
    };
    match leads {
        EntryLeads::Pages { gpa, page_size } => {
            let pages = if run.count == 1 { "page" } else { "pages" };
            let note = format!("{} {pages} of {}; the entry is {}", run.count, size(*page_size), run.entry);
            let (leads, rights) = (format!("→ {gpa}"), rights.to_string());
            Leaf {
                leads,
                rights,
                note,
                gpa_start: gpa.to_string(),
                bytes: run.gva.size,
                ..wrong(String::new(), false)
            }
        }
        EntryLeads::Table(table) => wrong(format!("→ {} at {}", table.level, table.gpa), false),
        EntryLeads::LeftOut(gpa) => wrong(format!("→ a table at {gpa}, which is left out here"), false),
        EntryLeads::OutsideRam(gpa) => wrong(format!("→ a table at {gpa}, where no RAM is"), true),
        EntryLeads::ReservedBits(bits) => wrong(format!("bits {bits} are set and must not be"), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::{Hex, Span};
    use crate::page_walk::Level;

    fn run(index: u16, count: u16, entry: u64, leads: EntryLeads) -> EntryRun {
        let gva = Span { start: u64::from(index) << 12, size: u64::from(count) << 12 };
        EntryRun { index, count, entry: Hex(entry), gva, leads }
    }

    fn table(level: Level, entries: Vec<EntryRun>) -> TableNode {
        TableNode { level, gpa: Hex(0x1000), gva: Span { start: 0, size: 1 << 21 }, entries }
    }

    fn leaves(steps: &[TreeStep]) -> Vec<&Leaf> {
        steps
            .iter()
            .filter_map(|step| match step {
                TreeStep::Leaf(leaf) => Some(leaf),
                _ => None,
            })
            .collect()
    }

    #[test]
    fn an_entry_takes_rights_away_from_all_below_it() {
        let pages = || EntryLeads::Pages { gpa: Hex(0x5000), page_size: 4096 };
        // Present, writable, user; without the execute-disable bit.
        let pt = table(Level::Pt, vec![run(0, 3, 0x5007, pages())]);
        for (entry, rights) in
            [(0x2007, "rwxu"), (0x2005, "r-xu"), (0x2003, "rwx"), (1 << 63 | 0x2001, "r--")]
        {
            let pd = table(Level::Pd, vec![run(0, 1, entry, EntryLeads::Table(pt.clone()))]);
            let mut steps = Vec::new();
            open(&mut steps, "CR3".to_owned(), &pd, EVERYTHING);
            let leaves = leaves(&steps);
            assert_eq!(
                (leaves[0].rights.as_str(), leaves[0].entry.as_str()),
                (rights, "PT[0–2]"),
                "{entry:#x}"
            );
            assert_eq!((leaves[0].bytes, leaves[0].gpa_start.as_str()), (3 << 12, "0x5000"));
        }
    }

    #[test]
    fn every_table_that_is_opened_is_closed() {
        let pt = table(Level::Pt, vec![]);
        let pd = table(
            Level::Pd,
            vec![run(0, 1, 3, EntryLeads::Table(pt.clone())), run(1, 1, 3, EntryLeads::Table(pt))],
        );
        let mut steps = Vec::new();
        open(&mut steps, "CR3".to_owned(), &pd, EVERYTHING);
        let count = |wanted: fn(&TreeStep) -> bool| steps.iter().filter(|step| wanted(step)).count();
        assert_eq!(count(|step| matches!(step, TreeStep::Open(_))), 3);
        assert_eq!(count(|step| matches!(step, TreeStep::Close)), 3);
    }

    #[test]
    fn a_wrong_entry_is_marked_and_maps_nothing() {
        let wrong = [EntryLeads::ReservedBits(Hex(0x80)), EntryLeads::OutsideRam(Hex(1 << 40))];
        let pml4 = table(Level::Pml4, wrong.into_iter().map(|leads| run(0, 1, 0x81, leads)).collect());
        let mut steps = Vec::new();
        open(&mut steps, "CR3".to_owned(), &pml4, EVERYTHING);
        assert!(leaves(&steps).iter().all(|leaf| leaf.wrong && leaf.bytes == 0));
        assert_eq!(leaves(&steps).len(), 2);
    }
}
