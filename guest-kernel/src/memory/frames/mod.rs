//! Frames: RAM by 4 KiB, for whoever needs some.
//!
//! A machine may have 64 GiB, sixteen million frames; a loop over them would take seconds before the first is given
//! out. So nothing is prepared. What was never given out is a few ranges (`ranges.rs`): RAM by the host's word, without
//! the image and the page tables that lie in it. What came back is a list (`list.rs`) whose links are in the frames
//! themselves. The first frame costs a look at `BootInfo`, every other some twenty instructions.
//!
//! ```text
//! RAM   │ below 1 MiB │ image ▒▒▒ │ given out │ range: never touched ……………… │ tables ▒▒ │
//!         not ours                   │  ▲ freed
//!                                    ▼  │
//!                              list: frame ──► frame ──► frame
//! ```
//!
//! RAM below 1 MiB is left alone: a CPU that starts needs its first instructions there.
//!
//! A [`Frame`] is owned: it comes back when it is dropped, and safe code cannot free it twice. Unsafe code can, by
//! [`Frame::from_gpa`]; the list finds that out, and a write to a frame behind its back as well.

mod list;
mod ranges;

use core::fmt;
use core::mem::ManuallyDrop;

use shared_abi::addr::PAGE_SIZE;
use shared_abi::boot_info::RamRegion;
use shared_abi::{BootInfo, Gpa, layout};

use crate::boot_info;
use crate::sync::Mutex;
use list::FreeList;
use ranges::{Content, Ranges};

/// Bytes of a frame.
pub const FRAME_SIZE: usize = PAGE_SIZE as usize;

/// 4 KiB of RAM that its owner alone uses. Dropping it gives it back.
#[derive(PartialEq, Eq)]
pub struct Frame {
    gpa: Gpa,
}

/// Gives one frame, with whatever its last owner left in it; `None` when all RAM is in use.
#[must_use]
pub fn allocate() -> Option<Frame> {
    take().map(|(frame, _)| frame)
}

/// Gives one frame of zeros; `None` when all RAM is in use.
///
/// RAM that nobody has used yet is zero by the host's doing, and is not cleared again.
#[must_use]
pub fn allocate_zeroed() -> Option<Frame> {
    let (mut frame, content) = take()?;
    if content == Content::Unknown {
        frame.bytes_mut().fill(0);
    }
    Some(frame)
}

/// Gives `count` frames one behind the other, the first at a multiple of `align` bytes; `None` when there is no such run.
///
/// Frames that were freed one by one are no run again, even if they are neighbours.
///
/// # Panics
/// When `count` is 0, or `align` no power of two.
#[must_use]
pub fn allocate_contiguous(count: u64, align: u64) -> Option<FrameRun> {
    assert!(count > 0, "a run of 0 frames was asked for");
    assert!(
        align.is_power_of_two(),
        "frames were asked for at multiples of {align}, which is no power of two"
    );
    let size = count.checked_mul(PAGE_SIZE)?;
    let start = with(|free| free.ranges.take_run(size, align.max(PAGE_SIZE)))?;
    Some(FrameRun { start, count })
}

/// Gives a frame back, as dropping it does.
pub fn free(frame: Frame) {
    drop(frame);
}

/// How many frames are free.
#[must_use]
pub fn free_count() -> u64 {
    with(|free| free.count())
}

/// How many frames there are, free or not. The image, the first page tables and RAM below 1 MiB are no frames.
#[must_use]
pub fn total_count() -> u64 {
    with(|free| free.all.size()) / PAGE_SIZE
}

impl Frame {
    /// Where it lies. It is mapped there, too: the kernel has all RAM at its own address.
    #[must_use]
    pub fn gpa(&self) -> Gpa {
        self.gpa
    }

    /// What is in it.
    #[must_use]
    pub fn bytes(&self) -> &[u8; FRAME_SIZE] {
        // SAFETY: RAM that is mapped at its own address, aligned to 4 KiB, and initialised since the host gave it; the
        // owner of the frame alone uses it.
        unsafe { &*(self.gpa.0 as *const [u8; FRAME_SIZE]) }
    }

    /// What is in it, to be changed.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8; FRAME_SIZE] {
        // SAFETY: As for `bytes`; the exclusive borrow of the frame is one of its memory.
        unsafe { &mut *(self.gpa.0 as *mut [u8; FRAME_SIZE]) }
    }

    /// Gives up the frame without freeing it: something that knows no frames, such as a page table, has it now.
    #[must_use]
    pub fn into_gpa(self) -> Gpa {
        ManuallyDrop::new(self).gpa
    }

    /// The frame that [`into_gpa`](Self::into_gpa) has given up.
    ///
    /// # Safety
    /// 1. `gpa` came from `into_gpa`, and this is done once for it.
    /// 2. Nobody uses the memory any more.
    #[must_use]
    pub unsafe fn from_gpa(gpa: Gpa) -> Self {
        Self { gpa }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        with(|free| free.give_frame(self.gpa));
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({})", self.gpa)
    }
}

/// Frames one behind the other. Dropping it gives them back, as a run. They can be given back one by one, too.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameRun {
    start: Gpa,
    count: u64,
}

impl FrameRun {
    /// Where the first lies.
    #[must_use]
    pub fn gpa(&self) -> Gpa {
        self.start
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What is in them, to be changed: whatever the last owners left.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let size = self.count as usize * FRAME_SIZE;
        // SAFETY: As for `Frame::bytes_mut`; the frames are neighbours.
        unsafe { core::slice::from_raw_parts_mut(self.start.0 as *mut u8, size) }
    }

    /// Gives up the frames without freeing them.
    #[must_use]
    pub fn into_gpa(self) -> Gpa {
        ManuallyDrop::new(self).start
    }

    /// The frames that [`into_gpa`](Self::into_gpa) has given up.
    ///
    /// # Safety
    /// 1. `start` came from the `into_gpa` of a run of `count` frames, and this is done once for it.
    /// 2. Nobody uses the memory any more.
    #[must_use]
    pub unsafe fn from_gpa(start: Gpa, count: u64) -> Self {
        Self { start, count }
    }
}

impl Drop for FrameRun {
    fn drop(&mut self) {
        with(|free| free.give_run(self.start, self.count));
    }
}

/// All that is free. It starts at first use.
static FREE: Mutex<Option<Free>> = Mutex::new(None);

fn with<T>(work: impl FnOnce(&mut Free) -> T) -> T {
    let mut free = FREE.lock();
    work(free.get_or_insert_with(Free::new))
}

fn take() -> Option<(Frame, Content)> {
    let (gpa, content) = with(Free::take_frame)?;
    Some((Frame { gpa }, content))
}

struct Free {
    /// All frames, free or not.
    all: Ranges,
    ranges: Ranges,
    list: FreeList,
}

impl Free {
    fn new() -> Self {
        let all = Ranges::of_free_ram(boot_info());
        Self { all, ranges: all, list: FreeList::new() }
    }

    fn count(&self) -> u64 {
        self.ranges.size() / PAGE_SIZE + self.list.count()
    }

    /// What came back goes out first: the host has given memory for it already.
    fn take_frame(&mut self) -> Option<(Gpa, Content)> {
        match self.list.pop() {
            Some(gpa) => Some((gpa, Content::Unknown)),
            None => self.ranges.take_frame(),
        }
    }

    fn give_frame(&mut self, gpa: Gpa) {
        self.check(gpa, 1);
        self.list.push(gpa);
    }

    /// Keeps a run a run, while there is room for ranges.
    fn give_run(&mut self, start: Gpa, count: u64) {
        self.check(start, count);
        if !self.ranges.give(start, Gpa(start.0 + count * PAGE_SIZE)) {
            (0..count).for_each(|index| self.list.push(Gpa(start.0 + index * PAGE_SIZE)));
        }
    }

    /// Stops whoever gives what is not his.
    fn check(&self, start: Gpa, count: u64) {
        let end = Gpa(start.0 + count * PAGE_SIZE);
        let is_ours = start.page_offset() == 0 && self.all.cover(start, end);
        assert!(is_ours, "{start}..{end} is no frame of free RAM, so it cannot be freed");
        let is_free = self.ranges.touch(start, end)
            || (0..count).any(|index| self.list.contains(Gpa(start.0 + index * PAGE_SIZE)));
        assert!(!is_free, "the frame at {start} was freed twice");
    }
}

impl Ranges {
    /// The RAM that is nobody's when the kernel starts.
    fn of_free_ram(info: &BootInfo) -> Self {
        let below = RamRegion::new(Gpa(0), layout::KERNEL);
        let mut ranges = Self::new();
        for ram in info.ram {
            ranges.add_without(ram, &[below, info.image, info.page_tables]);
        }
        ranges
    }
}
