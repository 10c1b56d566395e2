//! `MemoryMap`: one table of guest memory, made by walking the live page tables.
//!
//! Rows are in the order of guest-physical addresses. A row is as long as its purpose and its mapping stay the same; a
//! part that is mapped twice has two rows, and one that is not mapped has a row without GVA.

use serde::Serialize;
use shared_abi::Gpa;

use super::lint::{self, Finding};
use super::moment::{Moment, When};
use super::pieces::{Piece, Purpose, pieces};
use super::tables::{MappedRun, Scan};
use super::words::{PageRights, Span};
use crate::error::Result;
use crate::origin::Origin;
use crate::vm::Vm;

/// Guest memory, row by row.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryMap {
    /// [`VERSION`](super::VERSION) of the form.
    pub version: u32,
    /// Which tables were walked.
    pub moment: Moment,
    /// The rows, lowest GPA first.
    pub rows: Vec<Row>,
    /// What is wrong with the mappings.
    pub findings: Vec<Finding>,
    /// Why the walk stopped before the end, if it did.
    pub cut: Option<String>,
}

/// Memory with one purpose and one mapping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Guest-physical addresses.
    pub gpa: Span,
    /// Guest-virtual addresses; `None` where nothing maps it.
    pub gva: Option<Span>,
    /// Host-virtual addresses; `None` where it is no RAM.
    pub hva: Option<Span>,
    /// Size in bytes.
    pub size: u64,
    /// What the guest may do there.
    pub rights: Option<PageRights>,
    /// Size in bytes of the pages that map it.
    pub page_size: Option<u64>,
    /// What it is for.
    pub purpose: Purpose,
    /// The same in words.
    pub what: String,
    /// The line that placed it.
    pub placed_at: Option<Origin>,
}

/// More rows than this are not made: a guest chooses how many mappings there are.
const MAX_ROWS: usize = 300_000;
/// How often a piece is compared with a run of pages: for rows that a guest cannot have made to take long, far less.
const MAX_WORK: usize = 10_000_000;

impl MemoryMap {
    /// Maps the machine as it is now, which is `when`. `all` tells every page table, also when there are many.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm), when the registers cannot be read.
    pub fn of(vm: &Vm, when: When, all: bool) -> Result<Self> {
        let moment = Moment::of(vm, when)?;
        let scan = moment.scan(vm);
        let pieces = pieces(vm, &scan.tables, !all);
        let mut cut = scan.cut.clone();
        let (rows, are_all) = rows(&pieces, &scan, |gpa| vm.memory().hva(gpa));
        if !are_all {
            cut.get_or_insert(format!("there are more than {} rows: the others were left out", rows.len()));
        }
        // Without paging there are no mappings that could be wrong.
        let findings = match moment.tables() {
            Some(_) => lint::findings(&pieces, &scan, &vm.cpu_state()?),
            None => Vec::new(),
        };
        Ok(Self { version: super::VERSION, moment, rows, findings, cut })
    }
}

/// Cuts every piece by what maps it, and says whether that took no more work than it may.
fn rows(pieces: &[Piece], scan: &Scan, hva: impl Fn(Gpa) -> Option<u64>) -> (Vec<Row>, bool) {
    let mut runs: Vec<&MappedRun> = scan.runs.iter().collect();
    runs.sort_by_key(|run| (run.gpa, run.gva.start));
    let longest = runs.iter().map(|run| run.gva.size).max().unwrap_or_default();
    let (mut rows, mut work) = (Vec::with_capacity(pieces.len()), 0);
    for piece in pieces {
        let row = |gpa: Span, run: Option<&MappedRun>| Row {
            gpa,
            gva: run.map(|run| run.gpa_span().corresponding(gpa, run.gva.start)),
            hva: hva(Gpa(gpa.start)).map(|start| Span { start, size: gpa.size }),
            size: gpa.size,
            rights: run.map(|run| run.rights),
            page_size: run.map(|run| run.page_size).filter(|size| *size > 0),
            purpose: piece.purpose,
            what: piece.name.clone(),
            placed_at: piece.placed_at,
        };
        // No run that starts earlier reaches into this piece.
        let first = runs.partition_point(|run| run.gpa.0.saturating_add(longest) <= piece.gpa.start);
        let mut next = piece.gpa.start;
        for run in runs.get(first..).unwrap_or_default() {
            if run.gpa.0 >= piece.gpa.end() {
                break;
            }
            work += 1;
            if work > MAX_WORK || rows.len() > MAX_ROWS {
                return (rows, false);
            }
            let Some(part) = run.gpa_span().common(piece.gpa) else { continue };
            if next < part.start {
                rows.push(row(Span::new(next, part.start), None));
            }
            rows.push(row(part, Some(run)));
            next = next.max(part.end());
        }
        // Nobody misses what lies behind all RAM and is not mapped.
        if next < piece.gpa.end() && piece.purpose != Purpose::BeyondRam {
            rows.push(row(Span::new(next, piece.gpa.end()), None));
        }
    }
    (rows, true)
}
