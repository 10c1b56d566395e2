//! User mode: thousands of processes, programs made by chance, and what the host says of a CPU in ring 3. The accomplice
//! is `guest-kernel/src/bin/probe_user.rs`; what a process may do is tested in guests, in `guest-kernel/tests/user/`.

use std::time::Duration;

use vmm::{Grant, GrantMode, Input, KernelSource, Limits, StopReason};

use crate::harness::elf::{Elf, RW, RWX, RX, Segment};
use crate::harness::{Boot, boot, optimised_guest, patiently};

/// The accomplice, about to do `deed`.
fn accomplice(deed: &str) -> Boot {
    let mut boot = boot("probe_user").arguments(&deed.split(' ').collect::<Vec<_>>());
    boot.config.kernel = KernelSource::File(optimised_guest("probe_user"));
    boot
}

/// The numbers of a line.
fn numbers(line: &str) -> Vec<u64> {
    line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn a_thousand_processes_leave_no_frame_and_no_byte_behind() {
    let limit = patiently(Duration::from_secs(300));
    let console = accomplice("starts 1000").with(|config| config.timeout = Some(limit)).run().succeeded();
    let [died, frames, frames_after, bytes, bytes_after] = numbers(&console)[..] else {
        panic!("{console}");
    };
    assert_eq!((died, frames, bytes), (500, frames_after, bytes_after), "{console}");
}

#[test]
fn no_program_made_by_chance_ends_the_kernel() {
    let limit = patiently(Duration::from_secs(300));
    let console = accomplice("chance 200").with(|config| config.timeout = Some(limit)).run().succeeded();
    let [exited, died, stuck, out_of_time, frames, frames_after] = numbers(&console)[..] else {
        panic!("{console}");
    };
    assert_eq!(exited + died + stuck + out_of_time, 399, "{console}");
    assert_eq!(frames, frames_after, "{console}");
    assert!(exited > 20 && died > 20, "chance has become poor: {console}");
}

#[test]
fn a_process_waits_for_typing_with_the_whole_machine() {
    let console = accomplice("types").with(|config| config.input = Input::bytes("hello\n")).run();
    assert_eq!(console.succeeded(), "hello\nprocess 1 (types) exited with 6\n");
}

#[test]
fn a_program_that_never_ends_is_stopped_where_it_is() {
    let limit = patiently(Duration::from_millis(1000));
    let finished = accomplice("spins").with(|config| config.timeout = Some(limit)).run();
    finished.stopped_by(&StopReason::TimedOut { limit });
    let diagnosis = finished.vm.diagnose(&finished.report);
    let told = "the CPU was in user mode (ring 3, CS 0x33): RIP is outside of the image";
    assert!(diagnosis.facts.iter().any(|fact| fact.starts_with(told)), "{diagnosis}");
    assert!(diagnosis.facts.iter().any(|fact| fact.contains("it spins at 0x8000100000")), "{diagnosis}");
}

#[test]
fn programs_come_from_files_and_odd_ones_are_refused() {
    /// Where programs are linked (`user-library/link.ld`).
    const IMAGE: u64 = 0x80_0010_0000;
    // `mov edi, [rip + data]`, `xor eax, eax`, `syscall`: exits with the first byte of the second segment.
    let code = [0x8B, 0x3D, 0xFA, 0x0F, 0, 0, 0x31, 0xC0, 0x0F, 0x05];
    let text = Segment::new(IMAGE, RX, &code);
    let good = Elf::new(IMAGE).with(text.clone()).with(Segment::new(IMAGE + 0x1000, RW, &[7]).in_memory(8));
    let with = |segment| Elf::new(IMAGE).with(text.clone()).with(segment);
    let programs = [
        ("good", good.clone().to_bytes(), "exited with 7"),
        ("none", b"#!/bin/sh\n".to_vec(), "this is no complete ELF file"),
        ("cut", good.to_bytes()[..100].to_vec(), "this is no complete ELF file"),
        (
            "writable-code",
            with(Segment::new(IMAGE + 0x1000, RWX, &[7])).to_bytes(),
            "the segment at 0x8000101000 is to be written and executed: give it one of both",
        ),
        (
            "twice",
            with(Segment::new(IMAGE, RW, &[7])).to_bytes(),
            "0x8000100000 is mapped already: unmap it first",
        ),
        (
            "in-the-kernel",
            with(Segment::new(0x10_0000, RX, &[7])).to_bytes(),
            "the segment at 0x100000 does not start a page between 0x8000100000 and 0x8040000000, or does not end there",
        ),
        (
            "large",
            with(Segment::new(IMAGE + 0x1000, RW, &[]).in_memory(17 << 20)).to_bytes(),
            "a process has 4096 pages at most",
        ),
        (
            "entry-outside",
            Elf::new(IMAGE + 0x1000).with(text.clone()).to_bytes(),
            "the entry 0x8000101000 is in no executable segment",
        ),
    ];
    let directory = tempfile::tempdir().expect("a directory");
    for (name, bytes, _) in &programs {
        std::fs::write(directory.path().join(name), bytes).expect("writable");
    }
    let names: Vec<_> = programs.iter().map(|(name, ..)| *name).collect();
    let path = directory.path().to_owned();
    // More RAM than a process may have.
    let console = accomplice(&format!("files {}", names.join(" ")))
        .memory("64M")
        .with(|config| {
            config.timeout = Some(patiently(Duration::from_secs(60)));
            config.directory = Some(Grant { path, mode: GrantMode::ReadOnly, limits: Limits::default() });
        })
        .run()
        .succeeded();
    let expected: String = programs.iter().map(|(name, _, end)| format!("{name}: {end}\n")).collect();
    assert_eq!(console, expected);
}
