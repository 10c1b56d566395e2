//! The segments of a core file: which virtual addresses show which bytes of it.
//!
//! A run that the page tables map is cut where RAM ends and where pages were never touched. What is left has bytes in
//! the file; the rest is zeros, and a header without bytes says so.

use shared_abi::{Gpa, Gva};

use crate::explain::{Limits, MappedRun, Rules, read_table, scan};
use crate::memory::GuestMemory;
use crate::touched::Extent;

/// Consecutive virtual addresses that show consecutive bytes of the file, or zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) gva: Gva,
    pub(super) gpa: Gpa,
    /// Size in bytes.
    pub(super) size: u64,
    /// Where its bytes are in the file, from where RAM starts; `None` for zeros.
    pub(super) stored_at: Option<u64>,
    pub(super) is_writable: bool,
    pub(super) is_executable: bool,
}

/// All segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Segments {
    pub(super) segments: Vec<Segment>,
    /// Whether there were more than fit.
    pub(super) are_cut: bool,
}

/// The most program headers that the ELF header can count, less the one of the notes (System V ABI, chapter 4, e_phnum;
/// PN_XNUM, 0xFFFF, is no count).
const MAX_SEGMENTS: usize = 0xFFFE - 1;

impl Segments {
    /// The segments of a guest whose page tables CR3 points to; with `None` addresses are physical. The file holds
    /// `extents`, one behind the other.
    pub(super) fn of(cr3: Option<u64>, memory: &GuestMemory, extents: &[Extent]) -> Self {
        let ram = Ram::new(memory, extents);
        let mut segments = Self::default();
        match cr3 {
            Some(cr3) => {
                let found = scan(cr3, Rules::WIDEST, Limits::default(), |table| read_table(memory, table));
                segments.are_cut = found.cut.is_some();
                found.runs.iter().for_each(|run| ram.add_parts(Segment::of(run), &mut segments));
            }
            None => ram.add_parts(Segment::EVERYTHING, &mut segments),
        }
        segments
    }

    fn add(&mut self, segment: Segment) {
        if self.segments.len() < MAX_SEGMENTS {
            self.segments.push(segment);
        } else {
            self.are_cut = true;
        }
    }
}

/// RAM, and what of it the file holds.
struct Ram {
    regions: Vec<Extent>,
    stored: Vec<Stored>,
}

/// An extent of RAM, and where the file has it.
struct Stored {
    extent: Extent,
    offset: u64,
}

impl Ram {
    fn new(memory: &GuestMemory, extents: &[Extent]) -> Self {
        let mut behind = 0;
        let stored = extents.iter().map(|&extent| {
            let offset = behind;
            behind += extent.end.0 - extent.start.0;
            Stored { extent, offset }
        });
        let stored = stored.collect();
        let regions = memory.slots().map(|slot| Extent { start: slot.gpa, end: Gpa(slot.gpa.0 + slot.size) });
        Self { regions: regions.collect(), stored }
    }

    /// Adds what of `whole` is RAM.
    fn add_parts(&self, whole: Segment, segments: &mut Segments) {
        for part in self.regions.iter().filter_map(|&region| whole.within(region)) {
            self.add_parts_of_ram(part, segments);
        }
    }

    /// Adds `whole`, which is RAM, in parts that are stored and parts that are not.
    fn add_parts_of_ram(&self, whole: Segment, segments: &mut Segments) {
        let first = self.stored.partition_point(|stored| stored.extent.end <= whole.gpa);
        let mut done = whole.gpa;
        for stored in self.stored.iter().skip(first) {
            let Some(part) = whole.within(stored.extent) else { break };
            whole
                .within(Extent { start: done, end: part.gpa })
                .into_iter()
                .for_each(|zeros| segments.add(zeros));
            let offset = stored.offset + (part.gpa.0 - stored.extent.start.0);
            segments.add(Segment { stored_at: Some(offset), ..part });
            done = Gpa(part.gpa.0 + part.size);
        }
        let rest = Extent { start: done, end: Gpa(whole.gpa.0 + whole.size) };
        whole.within(rest).into_iter().for_each(|zeros| segments.add(zeros));
    }
}

impl Segment {
    /// Every address, as it is without paging: physical, and with all rights.
    const EVERYTHING: Self = Self {
        gva: Gva(0),
        gpa: Gpa(0),
        size: u64::MAX,
        stored_at: None,
        is_writable: true,
        is_executable: true,
    };

    fn of(run: &MappedRun) -> Self {
        Self {
            gva: Gva(run.gva.start),
            gpa: Gpa(run.gpa.0),
            size: run.gva.size,
            stored_at: None,
            is_writable: run.rights.writable,
            is_executable: run.rights.executable,
        }
    }

    /// The part of it whose physical addresses are in `extent`, if there is any.
    fn within(self, extent: Extent) -> Option<Self> {
        let start = self.gpa.max(extent.start);
        let end = extent.end.0.min(self.gpa.0.saturating_add(self.size));
        let size = end.checked_sub(start.0).filter(|&size| size > 0)?;
        let gva = Gva(self.gva.0.wrapping_add(start.0 - self.gpa.0));
        Some(Self { gva, gpa: start, size, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Backing;

    fn page(number: u64) -> Gpa {
        Gpa(number << 12)
    }

    #[test]
    fn a_run_is_cut_where_ram_ends_and_where_nothing_was_touched() {
        let size = "4G".parse().expect("a valid size");
        let memory = GuestMemory::allocate(size, Backing::default()).expect("address space");
        let extents = [Extent { start: page(2), end: page(4) }, Extent { start: page(8), end: page(9) }];

        let segments = Segments::of(None, &memory, &extents).segments;

        let seen: Vec<_> = segments.iter().map(|part| (part.gva.0, part.size, part.stored_at)).collect();
        let expected = [
            (0, 0x2000, None),
            (0x2000, 0x2000, Some(0)),
            (0x4000, 0x4000, None),
            (0x8000, 0x1000, Some(0x2000)),
            (0x9000, (3 << 30) - 0x9000, None),
            (4 << 30, 1 << 30, None),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn tables_that_claim_everything_make_a_limited_number_of_segments() {
        let memory = GuestMemory::allocate("2M".parse().expect("a valid size"), Backing::default())
            .expect("address space");
        for entry in 0..512 {
            memory.write(Gpa(0x1000 + entry * 8), &0x1003_u64.to_le_bytes()).expect("RAM");
        }
        let segments = Segments::of(Some(0x1000), &memory, &[Extent { start: page(1), end: page(2) }]);
        assert!(segments.are_cut);
        assert_eq!(segments.segments.len(), MAX_SEGMENTS);
        assert!(segments.segments.iter().all(|part| part.stored_at == Some(0)), "one page is stored once");
    }
}
