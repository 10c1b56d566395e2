//! What starting costs: instructions until the first output, and bytes of the image.
//!
//! Every guest pays for its start, a thousand times a day, and where a KVM interprets ring 0 it pays a quarter of a
//! microsecond for each instruction. So tables are made by the compiler, and subsystems start when they are first used.

use std::fs;
use std::path::Path;

use object::{Object, ObjectSection};
use vmm::exit::Exit;
use vmm::observe::{ExitCounts, Observer};
use vmm::vcpu::Place;
use vmm::{Console, KernelSource, Vm, VmConfig};

use crate::harness::{boot, guest, optimised_guest};
use crate::lessons::LESSONS;

/// Instructions from `_start` to the first output.
const START: u64 = 500;
/// Bytes of the image of `01_hello`, without debug information.
const IMAGE: u64 = 100 << 10;

#[test]
fn an_optimised_hello_prints_within_500_instructions() {
    let count = instructions_to_output(&optimised_guest("01_hello"));
    println!("{count} instructions from `_start` to the first output");
    assert!(count <= START, "{count}");
}

#[test]
fn a_hello_that_is_not_optimised_prints_within_500_instructions() {
    let count = instructions_to_output(&guest("01_hello"));
    println!("{count} instructions from `_start` to the first output");
    assert!(count <= START, "{count}");
}

#[test]
fn an_optimised_hello_takes_less_than_100_kib() {
    let sizes: Vec<(u64, &str)> =
        LESSONS.iter().map(|(name, _)| (size_without_debug_info(&optimised_guest(name)), *name)).collect();
    let &(hello, name) = sizes.first().expect("there are lessons");
    let (largest, largest_name) = sizes.iter().max().expect("there are lessons");
    println!("{name} takes {hello} bytes, the largest lesson {largest_name} {largest}");
    assert!(hello <= IMAGE, "{name}: {hello}");
}

/// A loop over its sixteen million frames would take a minute where a KVM interprets the kernel.
#[test]
fn the_frames_of_64_gib_are_there_without_being_looked_at() {
    let console = boot("04_memory_map").memory("64G").run().succeeded();
    let free = console.lines().last().and_then(|line| line.split(' ').rev().nth(2)?.parse::<u64>().ok());
    let frames = free.unwrap_or_else(|| panic!("the last line tells how many are free:\n{console}"));
    let all = (64 << 30) / shared_abi::addr::PAGE_SIZE;
    // Without the first MiB, the image, and the page tables.
    assert!((all - 2048..all - 256).contains(&frames), "{frames} of {all}");
}

/// Bytes of an ELF file, those of its debug information aside.
fn size_without_debug_info(image: &Path) -> u64 {
    let bytes = fs::read(image).expect("the image was built");
    let elf = object::File::parse(bytes.as_slice()).expect("an ELF file");
    let is_debug =
        |section: &object::Section<'_, '_>| section.name().is_ok_and(|name| name.starts_with(".debug"));
    let debug: u64 = elf.sections().filter(is_debug).map(|section| section.size()).sum();
    bytes.len() as u64 - debug
}

/// Steps through a guest until it asks for something to be printed.
fn instructions_to_output(image: &Path) -> u64 {
    let mut config = VmConfig::new(KernelSource::File(image.to_owned()));
    config.console = Console::capture().0;
    let mut vm = Vm::build(config).expect("the machine can be built: is /dev/kvm there?");
    let mut steps = Steps::default();
    let mut session = vm.session().expect("a vCPU");
    session.stop_after_each_instruction().expect("a KVM that steps");
    while !steps.has_printed {
        let stop = session.resume(&mut steps).expect("the host can do its work");
        assert!(stop.step().is_some(), "it ended before it printed: {stop:?}");
    }
    steps.count
}

/// Counts steps, and looks whether there was output.
#[derive(Default)]
struct Steps {
    count: u64,
    has_printed: bool,
    exits: ExitCounts,
}

impl Observer for Steps {
    fn on_exit(&mut self, exit: &Exit<'_>, _place: Option<Place>) {
        match exit {
            Exit::Debug(_) => self.count += 1,
            Exit::PioOut { .. } | Exit::Hypercall => self.has_printed = true,
            _ => {}
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.exits
    }
}
