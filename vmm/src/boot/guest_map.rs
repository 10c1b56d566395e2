//! `GuestMap`: what lies where in guest-physical memory, and with which rights.
//!
//! The fixed places are drawn in [`shared_abi::layout`]; the image's segments come from its ELF headers. Planning
//! puts both together, refuses what collides, and fills the gaps with free RAM. The result covers all RAM, in order
//! and without overlap, and is the only source for the page tables, for `BootInfo` and for every later question
//! "what is at this address".

use shared_abi::addr::PAGE_SIZE;
use shared_abi::boot_info::{RamRegion, ram_regions};
use shared_abi::{Gpa, layout};

use crate::boot::cpu_mode::StartMode;
use crate::boot::elf_headers::Segment;
use crate::boot::image_error::ImageError;
use crate::boot::kernel::KernelImage;
use crate::boot::page_tables;
use crate::boot::region::{Region, RegionKind, Rights};
use crate::config::{MemorySize, PageSize};
use crate::error::Error;
use crate::origin::Origin;
use crate::page_walk::PageTables;

/// All of guest RAM, region by region.
#[derive(Clone, Debug)]
pub struct GuestMap {
    mode: StartMode,
    regions: Vec<Region>,
    ram: [RamRegion; 2],
}

/// Why no map can be made.
#[derive(Debug)]
pub enum PlanError {
    /// The image does not fit the machine.
    Image(ImageError),
    /// The host's structures do not.
    Host(Error),
}

impl PlanError {
    /// The host error that names the image.
    #[must_use]
    pub fn for_image(self, image: &KernelImage) -> Error {
        match self {
            Self::Image(source) => image.error(source),
            Self::Host(error) => error,
        }
    }
}

impl GuestMap {
    /// Plans the memory of a machine with `memory` of RAM that holds `segments` (sorted, not overlapping) and starts in
    /// long mode.
    ///
    /// # Errors
    /// [`PlanError`] names what does not fit where.
    pub fn plan(memory: MemorySize, segments: &[Segment], page_size: PageSize) -> Result<Self, PlanError> {
        Self::plan_for(StartMode::Long, memory, segments, page_size)
    }

    /// The same for a machine that starts in `mode`. The older ones have a stack, and page tables if they walk any; all
    /// else is the image's or free, address 0 too, where real mode has its interrupt vectors.
    ///
    /// # Errors
    /// [`PlanError`] names what does not fit where.
    pub fn plan_for(
        mode: StartMode,
        memory: MemorySize,
        segments: &[Segment],
        page_size: PageSize,
    ) -> Result<Self, PlanError> {
        let ram = ram_regions(memory.bytes());
        let structures = if mode == StartMode::Long { structures() } else { vec![small_stack()] };
        for segment in segments {
            check_placement(segment, &structures, memory, ram).map_err(PlanError::Image)?;
        }

        let mut regions = structures;
        regions.extend(image_regions(segments));
        let mut map = Self { mode, regions: fill_with_free(regions, ram, page_size), ram };
        if mode.paging().is_some() {
            map.place_page_tables(memory, page_size)?;
        }
        Ok(map)
    }

    /// All regions, lowest first. Together they cover all RAM.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// RAM below and above the device hole.
    #[must_use]
    pub fn ram(&self) -> [RamRegion; 2] {
        self.ram
    }

    /// The mode that the machine starts in.
    #[must_use]
    pub fn mode(&self) -> StartMode {
        self.mode
    }

    /// The region of the page tables; `None` where the start needs none.
    #[must_use]
    pub fn page_tables(&self) -> Option<&Region> {
        self.of_kind(RegionKind::PageTables).next()
    }

    /// The tables that CR3 points to at the start, and how they are read; `None` while paging is off then.
    #[must_use]
    pub fn first_tables(&self) -> Option<PageTables> {
        Some(PageTables { cr3: self.page_tables()?.start.0, paging: self.mode.paging()? })
    }

    /// From the lowest to the highest page of the image.
    #[must_use]
    pub fn image(&self) -> RamRegion {
        let start = self.of_kind(RegionKind::Image).map(|region| region.start).min();
        let end = self.of_kind(RegionKind::Image).map(|region| region.end).max();
        RamRegion::new(start.unwrap_or_default(), end.unwrap_or_default())
    }

    fn of_kind(&self, kind: RegionKind) -> impl Iterator<Item = &Region> {
        self.regions.iter().filter(move |region| region.kind == kind)
    }

    /// Puts the page tables below the image when they fit there, else at the end of the largest free low region.
    ///
    /// They keep the rights and the page size of the free RAM they are cut from, so their place does not change how
    /// many of them there must be.
    fn place_page_tables(&mut self, memory: MemorySize, page_size: PageSize) -> Result<(), PlanError> {
        let tables = page_tables::count(self);
        let low_end = Gpa(layout::LOW_PAGE_TABLES.0 + layout::LOW_PAGE_TABLES_SIZE);
        // Only a foreign image may lie in that room.
        let low_room = self.free_run_starting_at(layout::LOW_PAGE_TABLES, low_end);
        if tables * PAGE_SIZE <= low_room {
            self.carve_page_tables(layout::LOW_PAGE_TABLES, tables);
            return Ok(());
        }
        let largest_free = self.largest_free_low_region();
        let room = largest_free.map_or(0, |free| free.size());
        let Some(free) = largest_free.filter(|_| tables * PAGE_SIZE <= room) else {
            return Err(PlanError::Host(Error::NoRoomForPageTables { tables, memory, page_size, room }));
        };
        self.carve_page_tables(Gpa(free.end.0 - tables * PAGE_SIZE), tables);
        Ok(())
    }

    fn free_run_starting_at(&self, start: Gpa, limit: Gpa) -> u64 {
        self.of_kind(RegionKind::Free)
            .find(|region| region.start <= start && start < region.end)
            .map_or(0, |region| region.end.min(limit).0 - start.0)
    }

    fn largest_free_low_region(&self) -> Option<Region> {
        self.of_kind(RegionKind::Free)
            .filter(|region| region.end <= layout::LOW_RAM_MAX_END)
            .max_by_key(|region| region.size())
            .copied()
    }

    /// Turns `tables` pages of a free region, from `start`, into the page-table region.
    fn carve_page_tables(&mut self, start: Gpa, tables: u64) {
        let end = Gpa(start.0 + tables * PAGE_SIZE);
        let position = self
            .regions
            .iter()
            .position(|region| region.start <= start && end <= region.end)
            .expect("the caller found the room in one free region");
        let free = self.regions.remove(position);
        let parts = [
            Region { end: start, ..free },
            Region { start, end, kind: RegionKind::PageTables, placed_at: Origin::here(), ..free },
            Region { start: end, ..free },
        ];
        let parts = parts.into_iter().filter(|part| part.size() > 0);
        self.regions.splice(position..position, parts);
    }
}

/// The regions that every machine has.
fn structures() -> Vec<Region> {
    vec![
        small_pages(layout::NULL_PAGE, layout::NULL_PAGE_SIZE, RegionKind::NullPage, Rights::None),
        small_pages(layout::BOOT_INFO, layout::BOOT_INFO_SIZE, RegionKind::BootInfo, Rights::Read),
        small_pages(layout::ARGUMENTS, layout::ARGUMENTS_MAX_SIZE, RegionKind::Arguments, Rights::Read),
        guard(layout::MACHINE_CHECK_STACK_GUARD, RegionKind::MachineCheckStackGuard),
        fault_stack(layout::MACHINE_CHECK_STACK, RegionKind::MachineCheckStack),
        guard(layout::NMI_STACK_GUARD, RegionKind::NmiStackGuard),
        fault_stack(layout::NMI_STACK, RegionKind::NmiStack),
        guard(layout::FAULT_STACK_GUARD, RegionKind::FaultStackGuard),
        fault_stack(layout::FAULT_STACK, RegionKind::FaultStack),
        small_pages(layout::STACK_GUARD, layout::STACK_GUARD_SIZE, RegionKind::StackGuard, Rights::None),
        small_pages(layout::STACK, layout::STACK_SIZE, RegionKind::Stack, Rights::ReadWrite),
    ]
}

/// The stack of an exception.
#[track_caller]
fn fault_stack(start: Gpa, kind: RegionKind) -> Region {
    small_pages(start, layout::FAULT_STACK_SIZE, kind, Rights::ReadWrite)
}

/// The page below it.
#[track_caller]
fn guard(start: Gpa, kind: RegionKind) -> Region {
    small_pages(start, layout::FAULT_STACK_GUARD_SIZE, kind, Rights::None)
}

/// The stack of modes that have no other structure: what one segment of real mode reaches.
fn small_stack() -> Region {
    const SIZE: u64 = 64 << 10;
    small_pages(Gpa(layout::STACK_END.0 - SIZE), SIZE, RegionKind::Stack, Rights::ReadWriteExecute)
}

/// A region of 4 KiB pages, placed by the line that calls this.
#[track_caller]
fn small_pages(start: Gpa, size: u64, kind: RegionKind, rights: Rights) -> Region {
    let end = Gpa(start.0 + size);
    Region { start, end, kind, rights, largest_page: PageSize::Size4K, placed_at: Origin::here() }
}

fn check_placement(
    segment: &Segment,
    structures: &[Region],
    memory: MemorySize,
    ram: [RamRegion; 2],
) -> Result<(), ImageError> {
    let in_ram = ram.iter().any(|region| region.start <= segment.start.0 && segment.end.0 <= region.end);
    if !in_ram {
        let ends = if ram[1].size() > 0 {
            format!("{memory} lie at 0x0..{:#x} and {:#x}..{:#x}", ram[0].end, ram[1].start, ram[1].end)
        } else {
            format!("{memory} end at {:#x}; --memory gives more", ram[0].end)
        };
        return Err(ImageError::OutsideRam { index: segment.index, range: segment.range(), ram: ends });
    }
    // Rights belong to pages, so a page cannot be shared with a structure.
    let (start, end) = pages(segment);
    match structures.iter().find(|structure| structure.start < end && start < structure.end) {
        Some(structure) => Err(ImageError::OverlapsStructure {
            index: segment.index,
            range: segment.range(),
            structure: structure.kind.name(),
            structure_range: structure.range(),
        }),
        None => Ok(()),
    }
}

/// The pages that a segment touches.
fn pages(segment: &Segment) -> (Gpa, Gpa) {
    let end = shared_abi::addr::page_align_up(segment.end.0).expect("the segment lies in RAM");
    (segment.start.page_start(), Gpa(end))
}

/// The image's pages with the rights their segments ask for; a page shared by several gets the rights of all.
fn image_regions(segments: &[Segment]) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::with_capacity(segments.len());
    for segment in segments {
        let (mut start, end) = pages(segment);
        // Segments are sorted, so only the last page so far can be shared.
        while let Some(last) = regions.last_mut()
            && last.end > start
        {
            let shared_start = Gpa(last.end.0 - PAGE_SIZE);
            let shared = Region { start: shared_start, rights: last.rights.union(segment.rights), ..*last };
            start = last.end;
            last.end = shared_start;
            if last.size() == 0 {
                regions.pop();
            }
            regions.push(shared);
        }
        if start < end {
            regions.push(small_pages(start, end.0 - start.0, RegionKind::Image, segment.rights));
        }
    }
    regions
}

/// Sorts `regions` and puts free RAM between them.
fn fill_with_free(mut regions: Vec<Region>, ram: [RamRegion; 2], page_size: PageSize) -> Vec<Region> {
    regions.sort_by_key(|region| region.start);
    let mut filled = Vec::with_capacity(regions.len() * 2 + 2);
    let free = |start, end| Region {
        start,
        end,
        kind: RegionKind::Free,
        rights: Rights::ReadWrite,
        largest_page: page_size,
        placed_at: Origin::here(),
    };
    for ram in ram {
        let mut next = Gpa(ram.start);
        for region in regions.iter().filter(|region| ram.start <= region.start.0 && region.start.0 < ram.end)
        {
            if next < region.start {
                filled.push(free(next, region.start));
            }
            filled.push(*region);
            next = region.end;
        }
        if next.0 < ram.end {
            filled.push(free(next, Gpa(ram.end)));
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(index: usize, start: u64, end: u64, rights: Rights) -> Segment {
        Segment { index, start: Gpa(start), end: Gpa(end), file_offset: 0, file_size: 0, rights }
    }

    fn plan(memory: &str, segments: &[Segment]) -> Result<GuestMap, PlanError> {
        GuestMap::plan(memory.parse().expect("a size"), segments, PageSize::Size2M)
    }

    #[test]
    fn the_map_covers_all_ram_without_overlap() {
        let text = segment(0, 0x10_0000, 0x10_2345, Rights::ReadExecute);
        for memory in ["2M", "16M", "2052K", "64G"] {
            let map = plan(memory, &[text]).expect("it fits");
            for ram in map.ram().into_iter().filter(|ram| ram.size() > 0) {
                let mut next = ram.start;
                for region in map.regions().iter().filter(|r| ram.start <= r.start.0 && r.start.0 < ram.end) {
                    assert_eq!(region.start.0, next, "{memory}");
                    next = region.end.0;
                }
                assert_eq!(next, ram.end, "{memory}");
            }
        }
    }

    #[test]
    fn a_page_shared_by_two_segments_has_the_rights_of_both() {
        let text = segment(0, 0x10_0000, 0x10_1800, Rights::ReadExecute);
        let data = segment(1, 0x10_1800, 0x10_3000, Rights::ReadWrite);
        let map = plan("2M", &[text, data]).expect("it fits");
        let image: Vec<_> = map.of_kind(RegionKind::Image).map(|r| (r.start.0, r.end.0, r.rights)).collect();
        assert_eq!(
            image,
            [
                (0x10_0000, 0x10_1000, Rights::ReadExecute),
                (0x10_1000, 0x10_2000, Rights::ReadWriteExecute),
                (0x10_2000, 0x10_3000, Rights::ReadWrite),
            ]
        );
    }

    #[test]
    fn three_segments_in_one_page_share_it() {
        let segments = [
            segment(0, 0x10_0000, 0x10_0100, Rights::Read),
            segment(1, 0x10_0100, 0x10_0200, Rights::ReadWrite),
            segment(2, 0x10_0200, 0x10_1100, Rights::ReadExecute),
        ];
        let map = plan("2M", &segments).expect("it fits");
        let image: Vec<_> = map.of_kind(RegionKind::Image).map(|r| (r.end.0, r.rights)).collect();
        assert_eq!(image, [(0x10_1000, Rights::ReadWriteExecute), (0x10_2000, Rights::ReadExecute)]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (start, end, complaint) in [
            (0x0, 0x1000, "null page"),
            (0x1800, 0x1900, "boot info"),
            (0x7_F000, 0x8_0001, "stack"),
            (0x10_0000, 0x20_0001, "beyond RAM: 2 MiB end at 0x200000"),
            (u64::MAX - 1, u64::MAX, "beyond RAM"),
        ] {
            let error = plan("2M", &[segment(3, start, end, Rights::Read)]).expect_err("it does not fit");
            let PlanError::Image(error) = error else { panic!("{error:?}") };
            assert!(error.to_string().contains(complaint), "{error}");
            assert!(error.to_string().contains("segment 3"), "{error}");
        }
    }

    #[test]
    fn page_tables_move_to_the_end_of_low_ram_when_they_grow() {
        let text = segment(0, 0x10_0000, 0x10_1000, Rights::ReadExecute);
        let small = plan("16M", &[text]).expect("it fits");
        assert_eq!(small.page_tables().map(|tables| tables.start), Some(layout::LOW_PAGE_TABLES));
        let memory = "1G".parse().expect("a size");
        let large = GuestMap::plan(memory, &[text], PageSize::Size4K).expect("it fits");
        assert_eq!(large.page_tables().map(|tables| tables.end), Some(Gpa(1 << 30)));
    }

    #[test]
    fn an_image_that_leaves_no_room_for_page_tables_is_refused() {
        let below_the_stack = segment(0, 0x1_0000, 0x2_F000, Rights::ReadExecute);
        let above_the_stack = segment(1, 0x8_0000, 0x20_0000, Rights::ReadWrite);
        let error =
            plan("2M", &[below_the_stack, above_the_stack]).expect_err("one free page holds no 4 tables");
        let PlanError::Host(error) = error else { panic!("{error:?}") };
        assert!(error.to_string().contains("4 page tables"), "{error}");
    }
}
