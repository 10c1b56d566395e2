//! What a right image becomes: its bytes at their places, and zeros around them.

use std::fs::{self, File};

use proptest::prelude::*;
use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;
use vmm::boot::elf_headers::Segment;
use vmm::boot::kernel::KernelImage;
use vmm::memory::GuestMemory;
use vmm::{Backing, KernelSource, MemorySize};

use crate::harness::contract::{Machine, machines};
use crate::harness::elf::{self, Elf};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_page_of_an_image_holds_its_segments_and_zeros(machine in machines(), seed: u8) {
        let image = image(&machine, seed);
        let size = MemorySize::new(machine.memory).expect("a size of RAM");
        let memory = GuestMemory::allocate(size, Backing::default()).expect("address space");

        let mut opened = KernelImage::open(&KernelSource::Bytes(image.to_bytes().into()))?;
        opened.load(&memory)?;

        for segment in opened.segments() {
            let pages = segment.start.page_start().0..segment.end.0.next_multiple_of(PAGE_SIZE);
            let mut found = vec![0xAA; (pages.end - pages.start) as usize];
            memory.read(Gpa(pages.start), &mut found)?;
            prop_assert!(found == expected(&image, pages.start, found.len()), "the pages of {:x?}", segment);
        }
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("image.elf");
    let image = Elf::new(0x10_0000).with(elf::Segment::new(0x10_0000, elf::RX, &[0xF4; 100]));
    fs::write(&path, image.to_bytes()).expect("a writable directory");
    let memory = GuestMemory::allocate(MemorySize::DEFAULT, Backing::default()).expect("address space");
    let mut opened = KernelImage::open(&KernelSource::File(path.clone())).expect("a right image");

    let file = File::options().write(true).open(&path).expect("a writable file");
    file.set_len(150).expect("a writable file");

    let error = opened.load(&memory).expect_err("bytes are missing");
    assert!(error.to_string().contains("image.elf"), "{error}");
}

/// An image with the segments of `machine`, of which the file holds a part and memory the rest.
fn image(machine: &Machine, seed: u8) -> Elf {
    let Some(first) = machine.segments.first() else {
        let only = elf::Segment::new(0x10_0000, elf::RX, &[seed]);
        return Elf::new(0x10_0000).with(only);
    };
    let mut image = Elf::new(first.start.0);
    for (segment, number) in machine.segments.iter().zip(0..) {
        // The first is executable, because the entry is there; rights do not matter here.
        let flags = if number == 0 { elf::RX } else { elf::R };
        image = image.with(part_in_file(segment, flags, seed.wrapping_add(number)));
    }
    // Segments need no order in the file.
    image.segments.reverse();
    image
}

/// None, some or all of a segment's bytes in the file, as `seed` decides.
fn part_in_file(segment: &Segment, flags: u32, seed: u8) -> elf::Segment {
    let size = segment.end.0 - segment.start.0;
    let file_size = size * u64::from(seed % 4) / 3;
    let bytes: Vec<u8> = (0..file_size).map(|offset| (offset % 251) as u8 ^ seed | 1).collect();
    elf::Segment::new(segment.start.0, flags, &bytes).in_memory(size)
}

/// What `size` bytes of memory at `start` should be, of `image` and zeros.
fn expected(image: &Elf, start: u64, size: usize) -> Vec<u8> {
    let mut memory = vec![0; size];
    for segment in &image.segments {
        let skipped = start.saturating_sub(segment.gpa) as usize;
        let place = segment.gpa.saturating_sub(start) as usize;
        let bytes = segment.bytes.get(skipped..).unwrap_or_default();
        let room = memory.get_mut(place..).unwrap_or_default();
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
    }
    memory
}
