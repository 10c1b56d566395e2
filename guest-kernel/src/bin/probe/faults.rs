//! Ways to die.
//!
//! The kernel tells the host of an exception that nobody handles; behind `without-idt` it is a triple fault. Addresses
//! come in as numbers, so that the compiler cannot see what will happen and make something else of it.

use core::hint::black_box;
use core::ptr;

use guest_kernel::cpu::{port, provoke};
use guest_kernel::exceptions::ExceptionFrame;
use guest_kernel::hypercall::{Hypercall, call};
use guest_kernel::{Gva, boot_info, print, println};
use shared_abi::layout;

use crate::Deed;

pub(crate) const DEEDS: &[Deed] = &[
    ("read-null", || read(8)),
    ("write-null", || write(8)),
    ("write-rodata", || write(RODATA.as_ptr() as u64)),
    ("write-text", || write(read as *const () as u64)),
    ("write-boot-info", || write(layout::BOOT_INFO.0)),
    ("write-stack-guard", || write(layout::STACK_GUARD.0)),
    ("execute-stack", || execute(layout::STACK.0)),
    ("overflow-stack", || {
        black_box(overflow_stack(1));
    }),
    ("read-beyond-ram", || read(0x7000_0000)),
    ("read-non-canonical", || read(1 << 47)),
    ("divide-by-zero", || {
        black_box(provoke::divide(black_box(1), black_box(0)));
    }),
    ("invalid-opcode", provoke::invalid_opcode),
    ("false-frame", show_a_false_frame),
    ("no-frame", show_no_frame),
    ("write-hole", map_the_hole_and_write),
    ("print-and-fault", || {
        print!("last words");
        write(8);
    }),
    ("unclaimed-port-out", || port::outw(0x1234, 0xABCD)),
    ("unclaimed-port-in", || {
        black_box(port::inb(0x60));
    }),
];

/// Tells the host of an exception that no CPU has, with registers that are none.
fn show_a_false_frame() {
    let frame = ExceptionFrame { vector: u64::MAX, rip: u64::MAX, cr2: 1 << 63, ..ExceptionFrame::default() };
    let _ = call(Hypercall::Exception { frame_gva: Gva(&raw const frame as u64) });
}

/// Tells the host of an exception whose registers are nowhere, at the end of RAM, and read-only.
fn show_no_frame() {
    let end = boot_info().ram[0].end - size_of::<ExceptionFrame>() as u64 + 8;
    for gva in [0, u64::MAX - 7, 1 << 47, end, layout::STACK_GUARD.0] {
        println!("{:?}", call(Hypercall::Exception { frame_gva: Gva(gva) }));
    }
}

static RODATA: &str = "read me only";

fn read(address: u64) {
    // SAFETY: None: this is the crime. Reading where nothing is mapped faults, and the test sees it.
    black_box(unsafe { ptr::read_volatile(black_box(address) as *const u64) });
}

fn write(address: u64) {
    // SAFETY: None: this is the crime. The pages are not writable, so nothing is changed.
    unsafe { ptr::write_volatile(black_box(address) as *mut u64, 1) };
}

fn execute(address: u64) {
    // SAFETY: None: this is the crime. The page cannot be executed, so the call itself faults.
    let code: extern "C" fn() = unsafe { core::mem::transmute(black_box(address) as *const ()) };
    code();
}

/// Each call keeps a page on the stack until the one below it returns, which never happens.
#[expect(unconditional_recursion, reason = "the stack is what should run out")]
fn overflow_stack(depth: u64) -> u64 {
    let page = black_box([depth; 512]);
    overflow_stack(depth + 1) + page[0]
}

/// Maps GVA 0xC000_0000 to the same GPA, where the device hole starts, and writes where in it no device is.
///
/// The first page-directory-pointer table covers 1 GiB an entry, and its entry 3 is empty below 4 GiB of RAM. A page
/// of 2 MiB needs one more table: any free page of zeros.
fn map_the_hole_and_write() {
    const PRESENT_WRITABLE: u64 = 0b11;
    const PAGE: u64 = 1 << 7;
    const FREE_PAGE: u64 = 0x1_0000;
    const HOLE: u64 = layout::LOW_RAM_MAX_END.0;
    /// Far behind the devices at the start of the hole.
    const NOWHERE: u64 = 0x10_0000;
    let pml4 = boot_info().page_tables.start as *const u64;
    // SAFETY: The first page tables and the free page are RAM, mapped read-write at their own addresses, and nothing
    // else in this program uses them. A new entry where none was present needs no TLB flush.
    unsafe {
        let pdpt = (pml4.read() & !0xFFF) as *mut u64;
        (FREE_PAGE as *mut u64).write(HOLE | PAGE | PRESENT_WRITABLE);
        pdpt.add(3).write(FREE_PAGE | PRESENT_WRITABLE);
        ((HOLE + NOWHERE) as *mut u64).write_volatile(0x1122);
    }
}
