//! The guest half of the benchmarks: does one thing very often.
//!
//! The first argument names the thing, the second says how often. Then the run ends with code 0; a machine that is run
//! again does the same again, so whatever a start costs is in no measurement but the first. The round trips are loops
//! in assembly, so that host and limit see the same few instructions around each exit.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kernel::channel::{MmioConsole, RingMemory, RingWriter};
use guest_kernel::cpu::port;
use guest_kernel::hypercall::{Hypercall, call, console_write};
use guest_kernel::memory::frames;
use guest_kernel::{arguments, entry, println};
use shared_abi::ports;

entry!(main);

fn main() {
    let mut words = arguments();
    let (what, often) = (words.next().unwrap_or_default(), words.next().and_then(|word| word.parse().ok()));
    let often: u64 = often.expect("usage: bench WHAT COUNT");
    match what {
        "out" => again(|| outs(often)),
        "in" => again(|| ins(often)),
        "mmio-write" => again_at_a_device(|| mmio_writes(often)),
        "mmio-read" => again_at_a_device(|| mmio_reads(often)),
        "calls" => again(|| calls(often)),
        "mebibytes" => again(|| mebibytes(often)),
        "lines" => again(|| lines(often)),
        "ring" => through_a_ring(often),
        "touch" => touch(often),
        "first-touch" => first_touch(often),
        _ => panic!("there is no benchmark `{what}`"),
    }
}

/// Ends a run after each time. Whoever does not run the machine again is done.
fn again(mut work: impl FnMut()) {
    loop {
        work();
        port::outl(ports::EXIT, 0);
    }
}

/// The same, where the console is a device in memory.
fn again_at_a_device(work: impl FnMut()) {
    MmioConsole::open().expect("a frame for a page table");
    again(work);
}

/// Defines a function that does a few instructions as often as it is told.
macro_rules! repeat {
    ($(#[$doc:meta])* $name:ident, $instructions:literal, $($operands:tt)*) => {
        $(#[$doc])*
        #[cfg(target_os = "none")]
        fn $name(often: u64) {
            // SAFETY: What is done touches devices alone, no memory: `again_at_a_device` has mapped theirs. Registers that
            // it changes are named.
            unsafe {
                core::arch::asm!(
                    "2:",
                    $instructions,
                    "dec rcx",
                    "jnz 2b",
                    inout("rcx") often => _,
                    $($operands)*
                );
            }
        }

        #[cfg(not(target_os = "none"))]
        fn $name(_often: u64) {}
    };
}

repeat!(
    /// Prints a byte at the debug console.
    outs, "out {port}, al", port = const shared_abi::ports::DEBUG_CONSOLE, in("al") b'.',
);
repeat!(
    /// Asks whether the debug console is there.
    ins, "in al, {port}", port = const shared_abi::ports::DEBUG_CONSOLE, out("al") _,
);
repeat!(
    /// Prints eight bytes at the console in memory.
    mmio_writes, "mov [{gva}], rax", gva = in(reg) shared_abi::layout::CONSOLE_MMIO.0, in("rax") u64::MAX / 255 * 46,
);
repeat!(
    /// Reads eight bytes there.
    mmio_reads, "mov rax, [{gva}]", gva = in(reg) shared_abi::layout::CONSOLE_MMIO.0, out("rax") _,
);
repeat!(
    /// Asks for the least there is: the exit count.
    calls, "mov eax, {number}\nout {port}, eax",
    number = const guest_kernel::hypercall::Hypercall::ExitCount.number(),
    port = const shared_abi::ports::HYPERCALL,
    out("rax") _,
    out("rdi") _,
);

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

/// Prints lines of 64 bytes, an exit each.
fn lines(often: u64) {
    for number in 0..often {
        println!("line {number:>5}: as long as one line of text is, and then no longer.");
    }
}

/// Bytes that go into the ring at once.
const PIECE: usize = 4096;
static RING: RingMemory<{ 4 * PIECE }> = RingMemory::new();

/// Prints pieces through a ring, and waits until the host has read them.
fn through_a_ring(pieces: u64) {
    let mut ring = RingWriter::open_with_doorbell(&RING).expect("a KVM with eventfds");
    let piece = &MEBIBYTE[..PIECE];
    again(|| {
        (0..pieces).for_each(|_| ring.write(piece));
        ring.flush();
    });
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
