//! What the contract says about guest memory, page by page, and machines to try it on.
//!
//! Said a second time, from [`shared_abi::layout`] and the image's segments alone, so that the VMM's own map has
//! something to be compared with.

use proptest::prelude::*;
use proptest::sample::select;
use shared_abi::addr::PAGE_SIZE;
use shared_abi::{Gpa, layout};
use vmm::PageSize;
use vmm::boot::elf_headers::Segment;
use vmm::boot::region::Rights;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// A machine, and what the contract says about its memory.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Bytes of RAM.
    pub(crate) memory: u64,
    /// Size of the pages that map free RAM.
    pub(crate) page_size: PageSize,
    /// The image, lowest segment first.
    pub(crate) segments: Vec<Segment>,
}

/// What lies where, whatever the image: start, size, rights.
const STRUCTURES: [(Gpa, u64, Rights); 11] = [
    (layout::NULL_PAGE, layout::NULL_PAGE_SIZE, Rights::None),
    (layout::BOOT_INFO, layout::BOOT_INFO_SIZE, Rights::Read),
    (layout::ARGUMENTS, layout::ARGUMENTS_MAX_SIZE, Rights::Read),
    (layout::FAULT_STACK_GUARD, layout::FAULT_STACK_GUARD_SIZE, Rights::None),
    (layout::FAULT_STACK, layout::FAULT_STACK_SIZE, Rights::ReadWrite),
    (layout::NMI_STACK_GUARD, layout::FAULT_STACK_GUARD_SIZE, Rights::None),
    (layout::NMI_STACK, layout::FAULT_STACK_SIZE, Rights::ReadWrite),
    (layout::MACHINE_CHECK_STACK_GUARD, layout::FAULT_STACK_GUARD_SIZE, Rights::None),
    (layout::MACHINE_CHECK_STACK, layout::FAULT_STACK_SIZE, Rights::ReadWrite),
    (layout::STACK_GUARD, layout::STACK_GUARD_SIZE, Rights::None),
    (layout::STACK, layout::STACK_SIZE, Rights::ReadWrite),
];

impl Machine {
    /// A machine with an image such as ours at 1 MiB.
    pub(crate) fn with_kernel(memory: u64, page_size: PageSize) -> Self {
        let segments = vec![
            segment(0, 0x10_0000, 0x1C9F, Rights::ReadExecute),
            segment(1, 0x10_2000, 0x628, Rights::Read),
            segment(2, 0x10_3000, 0x4321, Rights::ReadWrite),
        ];
        Self { memory, page_size, segments }
    }

    /// RAM below and above the hole, as `start..end`.
    pub(crate) fn ram(&self) -> [(u64, u64); 2] {
        let low_end = self.memory.min(layout::LOW_RAM_MAX_END.0);
        let high = layout::HIGH_RAM.0;
        [(0, low_end), (high, high + (self.memory - low_end))]
    }

    /// The rights of one 4 KiB page.
    pub(crate) fn rights_of_page(&self, page: u64) -> Rights {
        let overlaps = |start: u64, end: u64| start < page + PAGE_SIZE && page < end;
        if let Some((.., rights)) = STRUCTURES.iter().find(|(gpa, size, _)| overlaps(gpa.0, gpa.0 + size)) {
            return *rights;
        }
        let users: Vec<Rights> = self
            .segments
            .iter()
            .filter(|segment| overlaps(segment.start.0, segment.end.0))
            .map(|segment| segment.rights)
            .collect();
        if !users.is_empty() {
            return Rights::new(
                users.iter().any(|rights| rights.can_write()),
                users.iter().any(|rights| rights.can_execute()),
            );
        }
        if self.ram().iter().any(|(start, end)| *start <= page && page < *end) {
            Rights::ReadWrite
        } else {
            Rights::None
        }
    }

    /// Whether all of `start..end` is RAM in which neither structure nor image lies.
    pub(crate) fn is_free(&self, start: u64, end: u64) -> bool {
        self.ram().iter().any(|ram| ram.0 <= start && end <= ram.1)
            && STRUCTURES.iter().all(|(gpa, size, _)| end <= gpa.0 || gpa.0 + size <= start)
            && self.segments.iter().all(|segment| {
                end <= segment.start.page_start().0 || segment.end.0.next_multiple_of(PAGE_SIZE) <= start
            })
    }

    /// Whether `bytes` in a row are free in low RAM.
    pub(crate) fn has_free_low_run(&self, bytes: u64) -> bool {
        let ends = self.segments.iter().map(|segment| segment.end.0.next_multiple_of(PAGE_SIZE));
        let candidates = ends.chain(STRUCTURES.iter().map(|(gpa, size, _)| gpa.0 + size));
        candidates
            .filter(|start| start + bytes <= layout::LOW_RAM_MAX_END.0)
            .any(|start| self.is_free(start, start + bytes))
    }
}

/// Machines of all sizes, with images at all places that are allowed.
pub(crate) fn machines() -> impl Strategy<Value = Machine> {
    let sizes = prop_oneof![
        (Just(PageSize::Size4K), memory_up_to(128 * MIB)),
        (Just(PageSize::Size2M), memory_up_to(8 * GIB)),
        (Just(PageSize::Size1G), memory_up_to(layout::MAX_RAM_SIZE)),
    ];
    sizes.prop_flat_map(|(page_size, memory)| {
        images(memory).prop_map(move |segments| Machine { memory, page_size, segments })
    })
}

/// Any size, and sizes that just miss or just pass a boundary.
fn memory_up_to(max: u64) -> impl Strategy<Value = u64> {
    let boundaries: Vec<u64> = [2 * MIB, 4 * MIB, 64 * MIB, GIB, 3 * GIB, 4 * GIB, 5 * GIB, max]
        .into_iter()
        .filter(|size| *size <= max)
        .collect();
    let pages = prop_oneof![
        layout::MIN_RAM_SIZE / PAGE_SIZE..=max / PAGE_SIZE,
        (select(boundaries), 0u64..=6).prop_map(|(size, more)| (size / PAGE_SIZE + more).saturating_sub(3)),
    ];
    pages.prop_map(move |pages| (pages * PAGE_SIZE).clamp(layout::MIN_RAM_SIZE, max))
}

/// Segments, lowest first, some of which share pages: in up to three clusters, as far as RAM goes.
fn images(memory: u64) -> impl Strategy<Value = Vec<Segment>> {
    let low_end = memory.min(layout::LOW_RAM_MAX_END.0);
    let bases = vec![0x1_0000, 0x8_0000, 0x10_0000, low_end / 2, low_end - 0x1_0000, layout::HIGH_RAM.0];
    let gap = prop_oneof![Just(0), 1..PAGE_SIZE, PAGE_SIZE..4 * PAGE_SIZE, 0..8 * MIB];
    let size = prop_oneof![4 => 1..8 * PAGE_SIZE, 1 => 1..5 * MIB];
    let rights = select(vec![Rights::Read, Rights::ReadWrite, Rights::ReadExecute, Rights::ReadWriteExecute]);
    let cluster = (select(bases), prop::collection::vec((gap, size, rights), 1..6));
    prop::collection::vec(cluster, 1..4).prop_map(move |mut clusters| {
        clusters.sort_by_key(|(base, _)| *base);
        place(memory, clusters)
    })
}

/// Segments to be laid one behind the other: from where, and for each the gap before it, its size, its rights.
type Cluster = (u64, Vec<(u64, u64, Rights)>);

/// Lays the segments of all clusters, lowest cluster first; leaves out what does not fit.
fn place(memory: u64, clusters: Vec<Cluster>) -> Vec<Segment> {
    let empty = Machine { memory, page_size: PageSize::Size4K, segments: Vec::new() };
    let mut segments = Vec::new();
    let mut next = 0;
    for (base, parts) in clusters {
        next = base.max(next);
        for (gap, size, rights) in parts {
            let (start, end) = (next + gap, next + gap + size);
            if empty.is_free(Gpa(start).page_start().0, end.next_multiple_of(PAGE_SIZE)) {
                segments.push(segment(segments.len(), start, size, rights));
                next = end;
            }
        }
    }
    segments
}

/// A segment of `size` bytes.
pub(crate) fn segment(index: usize, start: u64, size: u64, rights: Rights) -> Segment {
    Segment { index, start: Gpa(start), end: Gpa(start + size), file_offset: 0, file_size: 0, rights }
}
