//! What is wrong with a machine's mappings, or at least worth a second look.

use serde::Serialize;

use super::pieces::{Piece, Purpose};
use super::rules::canonical;
use super::tables::{EntryFault, MappedRun, Scan};
use super::words::{Hex, Span};
use crate::debug::CpuState;

/// A kind of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sin {
    /// Pages that can be written and executed.
    WritableAndExecutable,
    /// Kernel memory that ring 3 may use.
    UserAccessibleKernel,
    /// An entry with a bit set that must be 0.
    ReservedBits,
    /// An entry or CR3 that points to a table where no RAM is.
    TableOutsideRam,
    /// Physical memory that two virtual addresses lead to.
    Alias,
    /// A page where neither RAM nor a device is.
    BeyondRam,
    /// A register with an address whose bits 63 to 47 are not all equal.
    NonCanonical,
}

/// A mistake, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its kind.
    pub sin: Sin,
    /// The virtual addresses that it is about.
    pub gva: Option<Span>,
    /// The physical ones.
    pub gpa: Option<Span>,
    /// A sentence, without a full stop.
    pub text: String,
}

/// At most so many findings of a kind are told; then their number.
const MOST: usize = 16;
/// Nobody counts further where a guest can have made both many mappings and many things they lead to.
const ENOUGH: usize = 1_000_000;

/// Looks at everything that `scan` found.
pub(super) fn findings(pieces: &[Piece], scan: &Scan, cpu: &CpuState) -> Vec<Finding> {
    let kinds = [
        writable_and_executable(scan),
        user_accessible(pieces, scan),
        bad_entries(scan),
        aliases(pieces, &scan.runs),
        beyond_ram(pieces, scan),
        non_canonical(cpu),
    ];
    kinds.into_iter().flat_map(Few::into_findings).collect()
}

/// The first findings of a kind, and how many there are.
#[derive(Default)]
struct Few {
    findings: Vec<Finding>,
    total: usize,
}

impl Few {
    fn add(&mut self, finding: impl FnOnce() -> Finding) {
        self.total += 1;
        if self.findings.len() < MOST {
            self.findings.push(finding());
        }
    }

    fn into_findings(mut self) -> Vec<Finding> {
        let more = self.total - self.findings.len();
        if let Some(last) = self.findings.last_mut().filter(|_| more > 0) {
            last.text.push_str(&format!(" (and {more} more)"));
        }
        self.findings
    }
}

fn writable_and_executable(scan: &Scan) -> Few {
    let mut found = Few::default();
    for run in scan.runs.iter().filter(|run| run.rights.writable && run.rights.executable) {
        let text = format!("GVA {} can be written and executed", run.gva);
        found.add(|| of_run(Sin::WritableAndExecutable, run, text));
    }
    found
}

fn user_accessible(pieces: &[Piece], scan: &Scan) -> Few {
    let mut found = Few::default();
    let kernel: Vec<&Piece> = pieces.iter().filter(|piece| piece.purpose.is_kernel()).collect();
    for run in scan.runs.iter().filter(|run| run.rights.user) {
        for (piece, part) in pieces_of(&kernel, run) {
            if found.total >= ENOUGH {
                return found;
            }
            let gva = run.gpa_span().corresponding(part, run.gva.start);
            found.add(|| Finding {
                sin: Sin::UserAccessibleKernel,
                gva: Some(gva),
                gpa: Some(part),
                text: format!("user mode may use GVA {gva}: {}", piece.name),
            });
        }
    }
    found
}

fn bad_entries(scan: &Scan) -> Few {
    let mut found = Few::default();
    for bad in &scan.bad {
        let place = match bad.entry_gpa {
            Some(gpa) => format!("{}[{}] at GPA {gpa}", bad.level, bad.index),
            None => "CR3".to_owned(),
        };
        let (sin, what) = match bad.fault {
            EntryFault::ReservedBits(Hex(bits)) => {
                (Sin::ReservedBits, format!("has reserved bits set: {}", bit_list(bits)))
            }
            EntryFault::TableOutsideRam => {
                (Sin::TableOutsideRam, "points to a table where no RAM is".to_owned())
            }
        };
        let text = format!("{place}, {}, {what}", bad.entry);
        let gpa = bad.entry_gpa.map(|gpa| Span { start: gpa.0, size: 8 });
        found.add(|| Finding { sin, gva: Some(bad.gva), gpa, text });
    }
    found
}

/// The numbers of the bits that are set.
pub(super) fn bit_list(bits: u64) -> String {
    let numbers: Vec<String> =
        (0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| bit.to_string()).collect();
    numbers.join(", ")
}

/// Physical memory with more than one virtual address. Sorted by GPA, an alias starts before the last one ends.
///
/// A kernel that has all RAM mapped to itself maps some of it once more, for heap, stacks and processes: that is how free RAM
/// is used, and no mistake.
fn aliases(pieces: &[Piece], runs: &[MappedRun]) -> Few {
    let mut found = Few::default();
    let kernel: Vec<&Piece> = pieces.iter().filter(|piece| piece.purpose != Purpose::Free).collect();
    let is_free = |gpa: Span| {
        let first = kernel.partition_point(|piece| piece.gpa.end() <= gpa.start);
        kernel.get(first).is_none_or(|piece| piece.gpa.start >= gpa.end())
    };
    let is_to_itself = |run: &MappedRun| run.gva.start == run.gpa_span().start;
    let mut sorted: Vec<&MappedRun> = runs.iter().collect();
    sorted.sort_by_key(|run| (run.gpa, run.gva.start));
    let mut reaches: Option<&MappedRun> = None;
    for run in sorted {
        let overlap = reaches.and_then(|other| Some((other, other.gpa_span().common(run.gpa_span())?)));
        let is_use = |other: &MappedRun, gpa| (is_to_itself(run) || is_to_itself(other)) && is_free(gpa);
        if let Some((other, gpa)) = overlap.filter(|(other, gpa)| !is_use(other, *gpa)) {
            let own = run.gpa_span().corresponding(gpa, run.gva.start);
            let others = other.gpa_span().corresponding(gpa, other.gva.start);
            found.add(|| Finding {
                sin: Sin::Alias,
                gva: Some(own),
                gpa: Some(gpa),
                text: format!("GVA {own} and GVA {others} lead to the same GPA {gpa}"),
            });
        }
        if reaches.is_none_or(|other| other.gpa_span().end() < run.gpa_span().end()) {
            reaches = Some(run);
        }
    }
    found
}

fn beyond_ram(pieces: &[Piece], scan: &Scan) -> Few {
    let mut found = Few::default();
    let is_nowhere = |piece: &&Piece| !piece.purpose.is_ram() && piece.purpose != Purpose::Device;
    let nowhere: Vec<&Piece> = pieces.iter().filter(is_nowhere).collect();
    for run in &scan.runs {
        for (piece, part) in pieces_of(&nowhere, run) {
            let gva = run.gpa_span().corresponding(part, run.gva.start);
            found.add(|| Finding {
                sin: Sin::BeyondRam,
                gva: Some(gva),
                gpa: Some(part),
                text: format!(
                    "GVA {gva} leads to GPA {part}, where neither RAM nor a device is ({})",
                    piece.name
                ),
            });
        }
    }
    found
}

fn non_canonical(cpu: &CpuState) -> Few {
    let mut found = Few::default();
    let (general, special) = (&cpu.general, &cpu.special);
    let registers = [
        ("RIP", general.rip),
        ("RSP", general.rsp),
        ("GDTR", special.gdt.base),
        ("IDTR", special.idt.base),
        ("TR", special.tr.base),
        ("FS", special.fs.base),
        ("GS", special.gs.base),
    ];
    for (name, address) in registers.into_iter().filter(|(_, address)| canonical(*address) != *address) {
        found.add(|| Finding {
            sin: Sin::NonCanonical,
            gva: Some(Span { start: address, size: 1 }),
            gpa: None,
            text: format!("{name} holds {address:#x}, whose bits 63 to 47 are not all equal"),
        });
    }
    found
}

fn of_run(sin: Sin, run: &MappedRun, text: String) -> Finding {
    Finding { sin, gva: Some(run.gva), gpa: Some(run.gpa_span()), text }
}

/// The pieces that a run maps, each with the part that it does.
fn pieces_of<'a>(pieces: &'a [&'a Piece], run: &MappedRun) -> impl Iterator<Item = (&'a Piece, Span)> {
    let mapped = run.gpa_span();
    let first = pieces.partition_point(|piece| piece.gpa.end() <= mapped.start);
    let overlapping = pieces
        .get(first..)
        .unwrap_or_default()
        .iter()
        .take_while(move |piece| piece.gpa.start < mapped.end());
    overlapping.filter_map(move |&piece| Some((piece, piece.gpa.common(mapped)?)))
}

#[cfg(test)]
mod tests {
    use super::super::rules::Rules;
    use super::super::tables::tests::memory;
    use super::super::tables::{Limits, scan};
    use super::*;

    /// 1 MiB of RAM: image up to 64 KiB, free behind it; nothing beyond.
    fn pieces() -> Vec<Piece> {
        let piece = |start, end, purpose, name: &str| Piece {
            gpa: Span::new(start, end),
            purpose,
            name: name.to_owned(),
            placed_at: None,
        };
        vec![
            piece(0, 0x1_0000, Purpose::Image, ".text"),
            piece(0x1_0000, 0x10_0000, Purpose::Free, "free"),
            piece(0x10_0000, 1 << 52, Purpose::BeyondRam, "beyond RAM"),
        ]
    }

    /// What is found when the last table has these entries.
    fn sins_of(entries: &[(usize, u64)]) -> Vec<Sin> {
        let read = memory(&[&[(0, 0x2007)], &[(0, 0x3007)], &[(0, 0x4007)], entries]);
        let scan = scan(0x1000, Rules { address_bits: 39, no_execute: true }, Limits::default(), read);
        findings(&pieces(), &scan, &CpuState::default()).into_iter().map(|finding| finding.sin).collect()
    }

    const NX: u64 = 1 << 63;

    #[test]
    fn each_sin_is_found_and_nothing_else() {
        for (entries, sins) in [
            (&[(0, 0x1001), (1, NX | 0x2003)][..], &[][..]),
            (&[(0, 0x1003)], &[Sin::WritableAndExecutable]),
            (&[(0, 0x1005)], &[Sin::UserAccessibleKernel]),
            (&[(0, NX | 0x2_0007)], &[]),
            (&[(0, 1 << 40 | 0x1001)], &[Sin::ReservedBits]),
            (&[(0, 0x1001), (7, 0x1001)], &[Sin::Alias]),
            (&[(1, 0x1001), (7, 0x1001)], &[Sin::Alias]),
            (&[(0x10, 0x1_0001), (0x20, 0x1_0001)], &[]),
            (&[(0x11, 0x1_0001), (0x20, 0x1_0001)], &[Sin::Alias]),
            (&[(0, 0x10_0001)], &[Sin::BeyondRam]),
            (
                &[(0, 0x1007), (1, 0x1007)],
                &[
                    Sin::WritableAndExecutable,
                    Sin::WritableAndExecutable,
                    Sin::UserAccessibleKernel,
                    Sin::UserAccessibleKernel,
                    Sin::Alias,
                ],
            ),
        ] {
            assert_eq!(sins_of(entries), sins, "{entries:x?}");
        }
    }

    #[test]
    fn tables_where_no_ram_is_are_found() {
        for (cr3, entry) in [(0x1000, 0x8000_0003), (1 << 30, 0x2003)] {
            let read = memory(&[&[(3, entry)]]);
            let scan = scan(cr3, Rules::WIDEST, Limits::default(), read);
            let found = findings(&pieces(), &scan, &CpuState::default());
            assert_eq!(found.iter().map(|finding| finding.sin).collect::<Vec<_>>(), [Sin::TableOutsideRam]);
        }
    }

    #[test]
    fn registers_with_impossible_addresses_are_found() {
        let mut cpu = CpuState::default();
        cpu.special.idt.base = 1 << 47;
        let found = findings(&pieces(), &Scan::default(), &cpu);
        assert_eq!(found.first().map(|finding| finding.sin), Some(Sin::NonCanonical));
        assert!(found.iter().all(|finding| finding.text.contains("IDTR")));
    }

    #[test]
    fn many_findings_of_a_kind_are_counted() {
        let entries: Vec<_> = (0..100).map(|index| (index * 2, NX | 0x5001)).collect();
        let read = memory(&[&[(0, 0x2003)], &[(0, 0x3003)], &[(0, 0x4003)], &entries]);
        let scan = scan(0x1000, Rules::WIDEST, Limits::default(), read);
        let found = findings(&pieces(), &scan, &CpuState::default());
        assert_eq!(found.len(), MOST);
        assert!(found.last().is_some_and(|last| last.text.ends_with("(and 83 more)")), "{found:?}");
    }
}
