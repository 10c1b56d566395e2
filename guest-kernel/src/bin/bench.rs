//! The guest half of the benchmarks: does one thing very often.
//!
//! The first argument names the thing, the second says how often. The loops are assembly, so that host and limit see
//! the same few instructions around each exit.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kernel::hypercall::{Hypercall, call, console_write};
use guest_kernel::memory::frames;
use guest_kernel::{arguments, entry};

entry!(main);

fn main() {
    let mut words = arguments();
    let (what, often) = (words.next().unwrap_or_default(), words.next().and_then(|word| word.parse().ok()));
    let often: u64 = often.expect("usage: bench calls|mebibytes|touch|first-touch COUNT");
    match what {
        "calls" => calls(often),
        "mebibytes" => mebibytes(often),
        "touch" => touch(often),
        "first-touch" => first_touch(often),
        _ => panic!("there is no benchmark `{what}`"),
    }
}

/// One mebibyte of text; `.rodata`, so that no page of it is touched before the host reads it.
static MEBIBYTE: [u8; 1 << 20] = {
    let mut text = [b'.'; 1 << 20];
    let mut line_end = 63;
    while line_end < text.len() {
        text[line_end] = b'\n';
        line_end += 64;
    }
    text
};

fn mebibytes(often: u64) {
    for _ in 0..often {
        console_write(&MEBIBYTE).expect("a console");
    }
}

/// Pages that are written to between two wishes to be kept.
const TOUCHED: usize = 16;
static PAGES: [Page; TOUCHED] = [const { Page(AtomicU64::new(0)) }; TOUCHED];

#[repr(align(4096))]
struct Page(AtomicU64);

/// Writes to all of them and asks to be kept, again and again.
fn touch(often: u64) {
    for round in 0..often {
        // Nobody reads them, so a compiler would leave the writes out.
        black_box(&PAGES).iter().for_each(|page| page.0.store(round, Ordering::Relaxed));
        call(Hypercall::Snapshot).expect("somebody keeps snapshots");
    }
}

/// Writes to each of `pages` pages that nobody has had, again and again, and asks to be kept before each time.
fn first_touch(pages: u64) {
    // Many of them start where a huge page of the host does; a few need not, in little RAM.
    let align = (pages * frames::FRAME_SIZE as u64).next_power_of_two().min(2 << 20);
    let run = frames::allocate_contiguous(pages, align).expect("a machine with that much RAM");
    loop {
        call(Hypercall::Snapshot).expect("somebody keeps snapshots");
        write_each(&run);
    }
}

/// Four instructions a page.
#[cfg(target_os = "none")]
fn write_each(run: &frames::FrameRun) {
    // SAFETY: The frames are mapped where they lie, and belong to the run. Nobody reads what is in them.
    unsafe {
        core::arch::asm!(
            "2: mov [{gpa}], rcx",
            "add {gpa}, {size}",
            "dec rcx",
            "jnz 2b",
            gpa = inout(reg) run.gpa().0 => _,
            size = const frames::FRAME_SIZE,
            inout("rcx") run.count() => _,
        );
    }
}

#[cfg(not(target_os = "none"))]
fn write_each(_run: &frames::FrameRun) {}

/// Hypercalls that ask for the least there is: the exit count.
#[cfg(target_os = "none")]
fn calls(often: u64) {
    const NUMBER: u64 = guest_kernel::hypercall::Hypercall::ExitCount.number();
    // SAFETY: The call writes no memory; RAX and RDI are named as changed.
    unsafe {
        core::arch::asm!(
            "2: mov eax, {number}",
            "out {port}, eax",
            "dec rcx",
            "jnz 2b",
            number = const NUMBER,
            port = const shared_abi::ports::HYPERCALL,
            inout("rcx") often => _,
            out("rax") _,
            out("rdi") _,
        );
    }
}

#[cfg(not(target_os = "none"))]
fn calls(_often: u64) {}
