//! The first page tables of the guest, which map every address to itself: four levels, in the older modes two or three.
//!
//! A 64-bit CPU translates every address it uses, so paging must be on before the first instruction. Four tables of
//! 512 entries each are walked (Intel SDM vol. 3A, 4.5, figure 4-8):
//!
//! ```text
//! GVA  63      48 47     39 38     30 29     21 20     12 11        0
//!     ┌──────────┬─────────┬─────────┬─────────┬─────────┬───────────┐
//!     │ = bit 47 │  PML4   │  PDPT   │   PD    │   PT    │  offset   │
//!     └──────────┴────┬────┴────┬────┴────┬────┴────┬────┴───────────┘
//! CR3 ──► PML4 ──[i]──┘► PDPT ──[i]──┘► PD ──[i]──┘► PT ──[i]──┘► 4 KiB page
//!                       │ PS: 1 GiB page │ PS: 2 MiB page
//! entry: 63 NX │ 51..12 address of the next table or of the page │ 7 PS │ 6 D │ 5 A │ 2 U/S │ 1 R/W │ 0 P
//! ```
//!
//! This file is pure: a [`GuestMap`] goes in, `(where, entries)` come out, only those that are not zero, for RAM is zero.
//! Nothing here knows guest memory, so the tests walk its output with a walker of their own. Tables are numbered in the
//! order in which they are met going down and right; the PML4 is the first. A table's address follows from its number.
//!
//! Guests of older modes get the least that runs them (`older.rs`): pages as large as there are, with all rights.

mod older;
mod ready;

use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;
use x86_64::structures::paging::PageTableFlags as Entry;

use crate::boot::guest_map::GuestMap;
use crate::boot::region::{Region, Rights};
use crate::config::PageSize;
use crate::origin::Origin;
use crate::page_walk::Paging;

/// Entries in a table.
const ENTRIES: usize = 512;
/// Bytes of an entry.
const ENTRY_SIZE: u64 = 8;

/// Takes entries that lie one behind the other, and where the first lies: in one table, or in whole tables one behind the other.
pub type Emit<'a> = dyn FnMut(Gpa, &[u64]) + 'a;

/// Hands `count` entries of one table to `emit`, of which `entry` makes each.
fn emit_run(emit: &mut Emit<'_>, gpa: Gpa, count: usize, entry: impl Fn(u64) -> u64) {
    let mut entries = [0; ENTRIES];
    let entries = entries.get_mut(..count).expect("a run lies in one table");
    for (slot, index) in entries.iter_mut().zip(0..) {
        *slot = entry(index);
    }
    emit(gpa, entries);
}

/// How many tables `map` needs.
#[must_use]
pub fn count(map: &GuestMap) -> u64 {
    match map.mode().paging() {
        None => return 0,
        Some(Paging::FourLevels) => {}
        Some(Paging::Pae) => return older::PAE_TABLES,
        Some(Paging::Bits32 { .. }) => return older::PAGE_DIRECTORIES,
    }
    let mut builder = Builder { runs: runs(map), run: 0, base: Gpa(0), tables: 0, emit: None };
    builder.table(Level::Pml4, 0);
    builder.tables
}

/// Builds all tables of `map` and hands their entries to `emit`, each once. Gives the line that had them built.
#[track_caller]
pub fn write(map: &GuestMap, emit: &mut Emit<'_>) -> Origin {
    let Some(Region { start: base, .. }) = map.page_tables().copied() else { return Origin::here() };
    match map.mode().paging() {
        Some(Paging::Bits32 { .. }) => older::page_directory(base, emit),
        Some(Paging::Pae) => older::pae(base, emit),
        Some(Paging::FourLevels) | None => four_levels(map, base, emit),
    }
    Origin::here()
}

fn four_levels(map: &GuestMap, base: Gpa, emit: &mut Emit<'_>) {
    let mut builder = Builder { runs: runs(map), run: 0, base, tables: 0, emit: Some(emit) };
    builder.table(Level::Pml4, 0);
    debug_assert!(builder.tables == count(map), "the plan counted the tables");
}

/// Addresses that are mapped in the same way.
struct Run {
    start: u64,
    end: u64,
    rights: Entry,
    largest_page: PageSize,
}

impl Run {
    fn is_like_free_ram(&self) -> bool {
        self.rights == ready::RIGHTS && self.largest_page == PageSize::Size2M
    }
}

/// The mapped regions; neighbours that are mapped in the same way become one run.
fn runs(map: &GuestMap) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::with_capacity(map.regions().len());
    for region in map.regions().iter().filter(|region| region.rights != Rights::None) {
        let (start, end) = (region.start.0, region.end.0);
        let (rights, largest_page) = (entry_bits(region.rights), region.largest_page);
        match runs.last_mut() {
            Some(last) if last.end == start && last.rights == rights && last.largest_page == largest_page => {
                last.end = end;
            }
            _ => runs.push(Run { start, end, rights, largest_page }),
        }
    }
    runs
}

/// The bits of the entry that maps a page with `rights`. No page is for user mode.
fn entry_bits(rights: Rights) -> Entry {
    let mut bits = Entry::PRESENT;
    bits.set(Entry::WRITABLE, rights.can_write());
    bits.set(Entry::NO_EXECUTE, !rights.can_execute());
    bits
}

/// The entry that leads to `table`. Rights are set where the page is mapped; the levels above allow everything (SDM vol. 3A,
/// 4.6).
fn pointer(table: Gpa) -> u64 {
    table.0 | (Entry::PRESENT | Entry::WRITABLE).bits()
}

/// A level of the walk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Pml4,
    Pdpt,
    Pd,
    Pt,
}

impl Level {
    /// How many bytes one entry of this level covers.
    const fn entry_size(self) -> u64 {
        match self {
            Self::Pml4 => 1 << 39,
            Self::Pdpt => PageSize::Size1G.bytes(),
            Self::Pd => PageSize::Size2M.bytes(),
            Self::Pt => PageSize::Size4K.bytes(),
        }
    }

    /// The size of page that an entry of this level can map itself.
    fn page_size(self) -> Option<PageSize> {
        match self {
            Self::Pml4 => None,
            Self::Pdpt => Some(PageSize::Size1G),
            Self::Pd => Some(PageSize::Size2M),
            Self::Pt => Some(PageSize::Size4K),
        }
    }

    /// The bit that says "this entry maps a page" where it could also point to a table.
    fn page_bit(self) -> Entry {
        if self == Self::Pt { Entry::empty() } else { Entry::HUGE_PAGE }
    }

    /// The level below.
    fn next(self) -> Self {
        match self {
            Self::Pml4 => Self::Pdpt,
            Self::Pdpt => Self::Pd,
            Self::Pd | Self::Pt => Self::Pt,
        }
    }
}

struct Builder<'a, 'b> {
    runs: Vec<Run>,
    /// The first run that does not end before the address reached; addresses only grow.
    run: usize,
    base: Gpa,
    tables: u64,
    /// Nobody, where tables are counted only.
    emit: Option<&'a mut Emit<'b>>,
}

impl Builder<'_, '_> {
    /// Builds the table of `level` for the addresses from `start`, with all tables below it.
    fn table(&mut self, level: Level, start: u64) -> Gpa {
        let gpa = Gpa(self.base.0 + self.tables * PAGE_SIZE);
        self.tables += 1;
        let place = |index: usize| Gpa(gpa.0 + index as u64 * ENTRY_SIZE);
        let size = level.entry_size();
        let mut index = 0;
        while index < ENTRIES {
            let address = start + index as u64 * size;
            let Some(run) = self.run_at(address) else { break };
            let (run_start, run_end) = (run.start, run.end);
            if address + size <= run_start {
                // Nothing is mapped before the next run: skip to the entry in which it starts.
                index += usize::try_from((run_start - address) / size).unwrap_or(ENTRIES);
                continue;
            }
            let whole = run_start <= address && address + size <= run_end;
            if whole && level.page_size().is_some_and(|page| page <= run.largest_page) {
                let bits = (run.rights | level.page_bit()).bits();
                let pages = usize::try_from((run_end - address) / size).unwrap_or(ENTRIES);
                let count = pages.min(ENTRIES - index);
                if let Some(emit) = &mut self.emit {
                    emit_run(emit, place(index), count, |page| (address + page * size) | bits);
                }
                index += count;
            } else if let tables @ [_, ..] = self.ready(level, address) {
                let first = Gpa(self.base.0 + self.tables * PAGE_SIZE);
                self.tables += tables.len() as u64;
                if let Some(emit) = &mut self.emit {
                    emit(first, tables.as_flattened());
                    emit_run(emit, place(index), tables.len(), |table| {
                        pointer(Gpa(first.0 + table * PAGE_SIZE))
                    });
                }
                index += tables.len();
            } else {
                let child = self.table(level.next(), address);
                if let Some(emit) = &mut self.emit {
                    emit(place(index), &[pointer(child)]);
                }
                index += 1;
            }
        }
        gpa
    }

    /// The tables of the level below `level`, from `address` on, that are the same in every machine.
    fn ready(&mut self, level: Level, address: u64) -> &'static [ready::Table] {
        match self.run_at(address) {
            Some(run) if level == Level::Pdpt && run.start <= address && run.is_like_free_ram() => {
                ready::of(address, run.end)
            }
            _ => &[],
        }
    }

    /// The first run that ends behind `address`.
    fn run_at(&mut self, address: u64) -> Option<&Run> {
        while self.runs.get(self.run).is_some_and(|run| run.end <= address) {
            self.run += 1;
        }
        self.runs.get(self.run)
    }
}
