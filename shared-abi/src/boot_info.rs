//! What the host tells the kernel at start.
//!
//! The host writes one [`BootInfo`] at [`layout::BOOT_INFO`] and puts that address into
//! RDI, where the first Rust function of the guest expects its first argument. The guest maps the page read-only.
//!
//! Host side: `vmm/src/boot/boot_info.rs`. Guest side: `guest-kernel/src/boot.rs`.

use crate::addr::Gpa;
use crate::define::shared_struct;
use crate::layout;

shared_struct! {
    /// One contiguous range of guest-physical memory.
    pub struct RamRegion {
        /// First byte, a GPA.
        pub start: u64,
        /// First address behind it, a GPA; equal to `start` when the region is empty.
        pub end: u64,
    }
}

shared_struct! {
    /// The boot information, version [`BootInfo::VERSION`]. All fields are little-endian 64-bit words.
    pub struct BootInfo {
        /// [`BootInfo::MAGIC`]; anything else means that no VMM of ours started this guest.
        pub magic: u64,
        /// [`BootInfo::VERSION`].
        pub version: u64,
        /// RAM below and above the device hole; the second is empty on small machines.
        pub ram: [RamRegion; 2],
        /// The kernel image: from its lowest to its highest page.
        pub image: RamRegion,
        /// The page tables the guest starts with.
        pub page_tables: RamRegion,
        /// The arguments: NUL-terminated UTF-8 strings, one after the other.
        pub arguments: RamRegion,
        /// Virtual CPUs in the machine.
        pub vcpu_count: u64,
        /// 1 when the host answers hypercalls; 0 for an image that was started without a contract.
        pub hypercalls: u64,
        /// 1 when there are interrupt controllers ([`interrupts`](crate::interrupts)); 0 when nothing interrupts.
        pub interrupts: u64,
        /// How often the time-stamp counter counts, in kHz; 0 where the host does not know.
        pub tsc_khz: u64,
    }
}

impl BootInfo {
    /// "DUETBOOT" as bytes.
    pub const MAGIC: u64 = u64::from_le_bytes(*b"DUETBOOT");
    /// Version of this structure.
    pub const VERSION: u64 = 3;
    /// The most virtual CPUs that a machine has.
    pub const MAX_VCPUS: u64 = 64;
}

const _: () = assert!(size_of::<BootInfo>() as u64 <= layout::BOOT_INFO_SIZE);

impl RamRegion {
    /// The region from `start` to `end` (exclusive).
    #[must_use]
    pub const fn new(start: Gpa, end: Gpa) -> Self {
        Self { start: start.0, end: end.0 }
    }

    /// Size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.end - self.start
    }
}

/// Where `size` bytes of RAM lie: below the device hole first, the rest above it.
#[must_use]
pub const fn ram_regions(size: u64) -> [RamRegion; 2] {
    let low = layout::LOW_RAM_MAX_END;
    if size <= low.0 {
        return [RamRegion::new(Gpa(0), Gpa(size)), RamRegion::new(layout::HIGH_RAM, layout::HIGH_RAM)];
    }
    let high_end = Gpa(layout::HIGH_RAM.0 + (size - low.0));
    [RamRegion::new(Gpa(0), low), RamRegion::new(layout::HIGH_RAM, high_end)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_beyond_three_gib_continues_above_the_hole() {
        let small = ram_regions(16 << 20);
        assert_eq!((small[0].end, small[1].size()), (16 << 20, 0));

        let big = ram_regions(64 << 30);
        assert_eq!((big[0].end, big[1].start), (3 << 30, 4 << 30));
        assert_eq!(big[0].size() + big[1].size(), 64 << 30);
    }
}
