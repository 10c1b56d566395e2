//! What lies where in guest-physical memory: every part has one purpose and a name.
//!
//! The plan of the start ([`GuestMap`](crate::boot::guest_map::GuestMap)) says what a region is for. The image's section
//! headers cut its region by name, the tables that CR3 leads to cut whatever region they lie in, and the buses say
//! where devices are. Section headers are a stranger's word: they can name a part of the image, and nothing else.

use object::read::File;
use object::{Object, ObjectSection};
use serde::Serialize;
use shared_abi::{interrupts, layout};

use super::tables::TablePage;
use super::words::{Span, plural};
use crate::boot::region::RegionKind;
use crate::origin::Origin;
use crate::page_walk::Level;
use crate::vm::Vm;

/// What a part of guest-physical memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Page 0, never mapped at start.
    NullPage,
    /// The `BootInfo`.
    BootInfo,
    /// The guest's arguments.
    Arguments,
    /// The unmapped page below the double fault's stack.
    FaultStackGuard,
    /// The stack of the double fault.
    FaultStack,
    /// The unmapped page below the NMI's stack.
    NmiStackGuard,
    /// The stack of the NMI.
    NmiStack,
    /// The unmapped page below the machine check's stack.
    MachineCheckStackGuard,
    /// The stack of the machine check.
    MachineCheckStack,
    /// The unmapped page below the stack.
    StackGuard,
    /// The stack of the first vCPU.
    Stack,
    /// A table that CR3 leads to.
    PageTable,
    /// Room for page tables that no table uses.
    UnusedPageTable,
    /// A section of the image, or a part of it that has no name.
    Image,
    /// RAM that the host uses for nothing.
    Free,
    /// Addresses without RAM, below the hole.
    NoRam,
    /// Addresses that never are RAM.
    Hole,
    /// Addresses at which a device answers.
    Device,
    /// Addresses behind all RAM.
    BeyondRam,
}

impl Purpose {
    /// Whether RAM lies there.
    #[must_use]
    pub fn is_ram(self) -> bool {
        !matches!(self, Self::NoRam | Self::Hole | Self::Device | Self::BeyondRam)
    }

    /// Whether user mode has no business there.
    #[must_use]
    pub fn is_kernel(self) -> bool {
        self.is_ram() && self != Self::Free
    }
}

/// A part of guest-physical memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its addresses.
    pub(super) gpa: Span,
    /// What it is for.
    pub(super) purpose: Purpose,
    /// A few words: a section's name, a table's level and range.
    pub(super) name: String,
    /// The line that placed it, where one did.
    pub(super) placed_at: Option<Origin>,
}

/// Where guest-physical addresses end: an entry has no more bits.
const END: u64 = 1 << 52;

/// All of guest-physical memory in order, without gap and overlap. `tables` are told by name; many of them folded, if
/// `fold`.
pub(super) fn pieces(vm: &Vm, tables: &[TablePage], fold: bool) -> Vec<Piece> {
    let mut pieces = planned(vm);
    pieces.extend(without_ram(vm));
    pieces.sort_by_key(|piece| piece.gpa.start);
    if tables.is_empty() { pieces } else { cut_by_tables(pieces, &named_tables(tables, fold)) }
}

/// RAM as it was planned, with the image's sections.
fn planned(vm: &Vm) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let sections = sections(vm);
    for region in vm.map().regions() {
        let whole = Piece {
            gpa: Span::new(region.start.0, region.end.0),
            purpose: purpose(region.kind),
            name: region.kind.name().to_owned(),
            placed_at: Some(region.placed_at),
        };
        if region.kind == RegionKind::Image && !sections.is_empty() {
            let rest = Piece { name: "kernel image, no section".to_owned(), ..whole };
            cut(&mut pieces, &rest, &sections, Purpose::Image);
        } else {
            pieces.push(whole);
        }
    }
    pieces
}

/// Cuts RAM by the tables that lie in it, wherever that is.
fn cut_by_tables(pieces: Vec<Piece>, tables: &[(Span, String)]) -> Vec<Piece> {
    let mut with_tables = Vec::with_capacity(pieces.len() + tables.len());
    for mut piece in pieces {
        if !piece.purpose.is_ram() {
            with_tables.push(piece);
            continue;
        }
        if piece.purpose == Purpose::UnusedPageTable {
            "unused room for page tables".clone_into(&mut piece.name);
        }
        // Both are sorted; a run of tables may reach into the next piece.
        let behind =
            tables.get(tables.partition_point(|(gpa, _)| gpa.end() <= piece.gpa.start)..).unwrap_or_default();
        let inside =
            behind.get(..behind.partition_point(|(gpa, _)| gpa.start < piece.gpa.end())).unwrap_or_default();
        cut(&mut with_tables, &piece, inside, Purpose::PageTable);
    }
    with_tables
}

fn purpose(kind: RegionKind) -> Purpose {
    match kind {
        RegionKind::NullPage => Purpose::NullPage,
        RegionKind::BootInfo => Purpose::BootInfo,
        RegionKind::Arguments => Purpose::Arguments,
        RegionKind::FaultStackGuard => Purpose::FaultStackGuard,
        RegionKind::FaultStack => Purpose::FaultStack,
        RegionKind::NmiStackGuard => Purpose::NmiStackGuard,
        RegionKind::NmiStack => Purpose::NmiStack,
        RegionKind::MachineCheckStackGuard => Purpose::MachineCheckStackGuard,
        RegionKind::MachineCheckStack => Purpose::MachineCheckStack,
        RegionKind::StackGuard => Purpose::StackGuard,
        RegionKind::Stack => Purpose::Stack,
        RegionKind::PageTables => Purpose::UnusedPageTable,
        RegionKind::Image => Purpose::Image,
        RegionKind::Free => Purpose::Free,
    }
}

/// Cuts `whole` by what is named inside it (sorted, no overlaps); what has no name stays as `whole` is.
fn cut(pieces: &mut Vec<Piece>, whole: &Piece, named: &[(Span, String)], purpose: Purpose) {
    let mut next = whole.gpa.start;
    for (gpa, name) in named {
        let Some(part) = gpa.common(Span::new(next, whole.gpa.end())) else { continue };
        if next < part.start {
            pieces.push(Piece { gpa: Span::new(next, part.start), ..whole.clone() });
        }
        pieces.push(Piece { gpa: part, purpose, name: name.clone(), placed_at: whole.placed_at });
        next = part.end();
    }
    if next < whole.gpa.end() {
        pieces.push(Piece { gpa: Span::new(next, whole.gpa.end()), ..whole.clone() });
    }
}

/// What is not RAM: below the hole, the hole with its devices, behind everything.
fn without_ram(vm: &Vm) -> Vec<Piece> {
    let [low, high] = vm.map().ram();
    let piece =
        |gpa, purpose, name: &str, placed_at| Piece { gpa, purpose, name: name.to_owned(), placed_at };
    let hole = Span::new(layout::LOW_RAM_MAX_END.0, layout::HIGH_RAM.0);
    let mut pieces = Vec::new();
    if low.end < hole.start {
        pieces.push(piece(Span::new(low.end, hole.start), Purpose::NoRam, "no RAM", None));
    }
    let mut devices: Vec<_> = vm.machine().mmio.places().collect();
    devices.sort_by_key(|(start, ..)| *start);
    let mut next = hole.start;
    for (start, size, origin) in devices {
        if next < start.0 {
            pieces.push(piece(Span::new(next, start.0), Purpose::Hole, "hole: no RAM, no device", None));
        }
        let name = match start {
            layout::CONSOLE_MMIO => "device: console",
            layout::CONSOLE_COALESCED_MMIO => "device: console, coalesced",
            interrupts::IO_APIC => "device: I/O APIC",
            _ => "device",
        };
        pieces.push(piece(Span { start: start.0, size }, Purpose::Device, name, Some(origin)));
        next = start.0 + size;
    }
    pieces.push(piece(Span::new(next, hole.end()), Purpose::Hole, "hole: no RAM, no device", None));
    let end = high.end.max(hole.end());
    pieces.push(piece(Span::new(end, END), Purpose::BeyondRam, "beyond RAM", None));
    pieces
}

/// More sections than a linker writes; the rest of the image stays without names.
const MAX_SECTIONS: usize = 1024;
/// Longer names are cut: they are for a table.
const MAX_NAME: usize = 40;

/// The sections that are loaded, sorted; where two overlap, the later one loses.
fn sections(vm: &Vm) -> Vec<(Span, String)> {
    let Ok(bytes) = vm.image().bytes() else { return Vec::new() };
    let Ok(elf) = File::parse(&*bytes) else { return Vec::new() };
    let sections = elf.sections().take(MAX_SECTIONS).filter(|section| section.size() > 0);
    // A section may say that it is loaded, such as notes, and be in no segment that is.
    let is_loaded = |gpa: &Span| {
        let mut segments = vm.image().segments().iter();
        segments.any(|segment| segment.start.0 <= gpa.start && gpa.end() <= segment.end.0)
    };
    let mut sections: Vec<(Span, String)> = sections
        .filter_map(|section| {
            let name: String =
                section.name().ok()?.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
            let end = section.address().checked_add(section.size())?;
            Some((Span::new(section.address(), end), name))
        })
        .filter(|(gpa, _)| is_loaded(gpa))
        .collect();
    sections.sort_by_key(|(gpa, _)| gpa.start);
    let mut end = 0;
    sections.retain(|(gpa, _)| {
        let is_free = gpa.start >= end;
        end = if is_free { gpa.end() } else { end };
        is_free
    });
    sections
}

/// At most so many tables are told one by one, unless all are asked for.
const FEW: usize = 16;

/// The tables' places and names, sorted, each page once; when there are many, those that lie side by side become one.
fn named_tables(tables: &[TablePage], fold: bool) -> Vec<(Span, String)> {
    let mut tables: Vec<_> = tables.to_vec();
    tables.sort_by_key(|table| (table.gpa.0, table.level, table.gva.start));
    tables.dedup_by_key(|table| table.gpa);
    if tables.len() <= FEW || !fold {
        return tables.iter().map(|table| (page_of(table), name_of(table))).collect();
    }
    let is_next = |a: &TablePage, b: &TablePage| {
        page_of(a).end() == b.gpa.0 && !a.level.is_root() && !b.level.is_root()
    };
    tables.chunk_by(is_next).filter_map(folded).collect()
}

/// Tables side by side as one: their place, how many there are of each level, and the addresses of the first to the last.
fn folded(tables: &[TablePage]) -> Option<(Span, String)> {
    let (first, last) = (tables.first()?, tables.last()?);
    if tables.len() == 1 {
        return Some((page_of(first), name_of(first)));
    }
    let counts =
        Level::ALL.map(|level| (tables.iter().filter(|table| table.level == level).count() as u64, level));
    let counts = counts.iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> =
        counts.map(|(count, level)| format!("{count} {level}{}", plural(*count))).collect();
    let start = tables.iter().map(|table| table.gva.start).min()?;
    let end = tables.iter().map(|table| table.gva.end()).max()?;
    let gpa = Span::new(first.gpa.0, page_of(last).end());
    Some((gpa, format!("{} for GVA {}", counts.join(", "), Span::new(start, end))))
}

const PAGE: u64 = shared_abi::addr::PAGE_SIZE;

fn page_of(table: &TablePage) -> Span {
    Span { start: table.gpa.0, size: PAGE }
}

fn name_of(table: &TablePage) -> String {
    match table.level {
        level if level.is_root() => format!("{level}, where CR3 points"),
        level => format!("{level} for GVA {}", table.gva),
    }
}
