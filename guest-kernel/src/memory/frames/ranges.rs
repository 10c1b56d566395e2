//! Ranges of free RAM: few, long, and not even looked at.
//!
//! At first they are what the host gave, and known to be zero. A run that is freed becomes a range again.

use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;
use shared_abi::boot_info::RamRegion;

/// What is in memory that is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Zeros: nobody has had it before.
    Zero,
    /// What the last owner left.
    Unknown,
}

/// One range; `start == end` when there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
    content: Content,
}

/// No range.
const EMPTY: Range = Range { start: 0, end: 0, content: Content::Unknown };

impl Range {
    /// Takes in what came back, if it is a neighbour.
    fn grow(&mut self, start: u64, end: u64) -> bool {
        let is_used = self.start < self.end && self.content == Content::Unknown;
        match (self.start == end, self.end == start) {
            (true, _) if is_used => self.start = start,
            (_, true) if is_used => self.end = end,
            _ => return false,
        }
        true
    }
}

/// How many ranges there can be. A machine starts with four at most; runs that are freed out of order add some.
const MAX_RANGES: usize = 16;

/// All ranges, in no order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges {
    ranges: [Range; MAX_RANGES],
    size: u64,
}

impl Ranges {
    pub(super) const fn new() -> Self {
        Self { ranges: [EMPTY; MAX_RANGES], size: 0 }
    }

    /// Bytes of all ranges.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Adds `ram` without the regions in `used`, as memory of zeros.
    pub(super) fn add_without(&mut self, ram: RamRegion, used: &[RamRegion]) {
        let mut start = ram.start;
        while start < ram.end {
            // Whichever used region comes next ends this range; one that covers `start` moves it.
            let next =
                used.iter().filter(|used| used.end > start && used.start < used.end).min_by_key(|u| u.start);
            let (end, behind) = next.map_or((ram.end, ram.end), |used| (used.start.min(ram.end), used.end));
            if start < end {
                self.insert(Range { start, end, content: Content::Zero });
            }
            start = behind;
        }
    }

    /// Takes the lowest frame of a range.
    pub(super) fn take_frame(&mut self) -> Option<(Gpa, Content)> {
        let range = self.ranges.iter_mut().find(|range| range.start < range.end)?;
        let gpa = Gpa(range.start);
        range.start += PAGE_SIZE;
        self.size -= PAGE_SIZE;
        Some((gpa, range.content))
    }

    /// Takes `size` bytes at a multiple of `align`, from the end of a range: so runs and frames do not get in each
    /// other's way, and what the alignment leaves over is left once, at the end of RAM.
    pub(super) fn take_run(&mut self, size: u64, align: u64) -> Option<Gpa> {
        for index in (0..MAX_RANGES).rev() {
            let range = self.ranges[index];
            let Some(start) = range.end.checked_sub(size).map(|start| start & !(align - 1)) else { continue };
            if start < range.start || range.start == range.end {
                continue;
            }
            let rest = Range { start: start + size, ..range };
            if rest.start < rest.end && !self.has_room() {
                continue;
            }
            self.ranges[index].end = start;
            self.size -= range.end - start;
            if rest.start < rest.end {
                self.insert(rest);
            }
            return Some(Gpa(start));
        }
        None
    }

    /// Adds what came back, and says whether there was room for it.
    pub(super) fn give(&mut self, start: Gpa, end: Gpa) -> bool {
        let (start, end) = (start.0, end.0);
        if self.ranges.iter_mut().any(|range| range.grow(start, end)) {
            self.size += end - start;
            return true;
        }
        self.insert(Range { start, end, content: Content::Unknown })
    }

    /// Whether one range has all of `start..end`.
    pub(super) fn cover(&self, start: Gpa, end: Gpa) -> bool {
        start < end && self.ranges.iter().any(|range| range.start <= start.0 && end.0 <= range.end)
    }

    /// Whether some range has a part of `start..end`.
    pub(super) fn touch(&self, start: Gpa, end: Gpa) -> bool {
        self.ranges.iter().any(|range| range.start.max(start.0) < range.end.min(end.0))
    }

    fn has_room(&self) -> bool {
        self.ranges.iter().any(|range| range.start == range.end)
    }

    fn insert(&mut self, range: Range) -> bool {
        match self.ranges.iter_mut().find(|range| range.start == range.end) {
            Some(room) => {
                *room = range;
                self.size += range.end - range.start;
                true
            }
            None => false,
        }
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn of(start: u64, end: u64) -> Ranges {
        let mut ranges = Ranges::new();
        ranges.add_without(RamRegion { start, end }, &[]);
        ranges
    }

    #[test]
    fn what_lies_in_ram_is_left_out() {
        let used = [(0, MIB), (MIB, 3 * MIB), (14 * MIB, 16 * MIB), (0, 0)];
        let used = used.map(|(start, end)| RamRegion { start, end });
        let mut ranges = Ranges::new();
        ranges.add_without(RamRegion { start: 0, end: 16 * MIB }, &used);
        assert_eq!(ranges.size(), 11 * MIB);
        assert!(ranges.cover(Gpa(3 * MIB), Gpa(14 * MIB)));
        assert!(!ranges.touch(Gpa(0), Gpa(3 * MIB)) && !ranges.touch(Gpa(14 * MIB), Gpa(16 * MIB)));
    }

    #[test]
    fn regions_that_touch_or_repeat_are_left_out_once() {
        let used =
            [(2, 5), (4, 6), (2, 5)].map(|(start, end)| RamRegion { start: start * MIB, end: end * MIB });
        let mut ranges = Ranges::new();
        ranges.add_without(RamRegion { start: 0, end: 8 * MIB }, &used);
        assert_eq!(ranges.size(), 4 * MIB);
    }

    #[test]
    fn a_run_comes_from_the_end_and_the_rest_stays() {
        let mut ranges = of(MIB, 16 * MIB - PAGE_SIZE);
        assert_eq!(ranges.take_run(2 * MIB, 2 * MIB), Some(Gpa(12 * MIB)));
        assert_eq!(ranges.size(), 13 * MIB - PAGE_SIZE);
        assert!(ranges.cover(Gpa(14 * MIB), Gpa(16 * MIB - PAGE_SIZE)), "the rest above the run");
        assert_eq!(ranges.take_run(2 * MIB, 2 * MIB), Some(Gpa(10 * MIB)));
        assert_eq!(ranges.take_frame(), Some((Gpa(MIB), Content::Zero)));
    }

    #[test]
    fn a_run_that_fits_nowhere_is_refused() {
        let mut ranges = of(MIB, 3 * MIB);
        assert_eq!(ranges.take_run(4 * MIB, PAGE_SIZE), None);
        assert_eq!(ranges.take_run(2 * MIB, 2 * MIB), None);
        assert_eq!(ranges.size(), 2 * MIB, "nothing was lost");
        assert_eq!(ranges.take_run(2 * MIB, PAGE_SIZE), Some(Gpa(MIB)));
        assert_eq!(ranges.take_frame(), None);
    }

    #[test]
    fn runs_that_come_back_are_one_range_with_their_neighbours() {
        let mut ranges = of(0, 0);
        for (start, end) in [(2, 4), (4, 6), (0, 2)] {
            assert!(ranges.give(Gpa(start * MIB), Gpa(end * MIB)));
        }
        assert!(ranges.cover(Gpa(0), Gpa(6 * MIB)));
        assert_eq!(ranges.take_frame(), Some((Gpa(0), Content::Unknown)));
    }

    #[test]
    fn more_ranges_than_there_is_room_for_are_refused() {
        let mut ranges = Ranges::new();
        let given = (0..100).filter(|n| ranges.give(Gpa(n * 2 * MIB), Gpa(n * 2 * MIB + PAGE_SIZE))).count();
        assert_eq!(given, MAX_RANGES);
        assert_eq!(ranges.size(), MAX_RANGES as u64 * PAGE_SIZE);
    }
}
