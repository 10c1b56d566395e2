//! Deaths at the border of the machine: ports and addresses where nothing answers.

use core::arch::asm;
use core::hint::black_box;
use core::ptr;

use guest_kernel::boot_info;
use shared_abi::layout;

use super::{Death, death};

pub(crate) const DEATHS: &[Death] = &[
    death("unknown-port-out", "writes to a port where no device is", unknown_port_out),
    death("unknown-port-in", "reads a port where no device is", unknown_port_in),
    death("unknown-port-string", "writes a string to a port where no device is", unknown_port_string),
    death("hole-write", "writes to the device hole where no device is", hole_write),
    death("hole-read", "reads the device hole where no device is", hole_read),
];

fn unknown_port_out() {
    // SAFETY: None.
    // DIES HERE: unknown-port-out
    unsafe { asm!("out dx, ax", in("dx") 0x1234_u16, in("ax") 0xABCD_u16) };
}

fn unknown_port_in() {
    // SAFETY: None.
    // DIES HERE: unknown-port-in
    unsafe { asm!("in al, dx", in("dx") 0x60_u16, out("al") _) };
}

fn unknown_port_string() {
    let text = black_box(*b"text");
    // SAFETY: None.
    unsafe {
        // DIES HERE: unknown-port-string
        asm!("rep outsb", in("dx") 0x3F8_u16, inout("rcx") text.len() => _, inout("rsi") text.as_ptr() => _)
    };
}

fn hole_write() {
    let nowhere = map_hole() as *mut u64;
    // SAFETY: None.
    // DIES HERE: hole-write
    unsafe { ptr::write_volatile(nowhere, 0x1122) };
}

fn hole_read() {
    let nowhere = map_hole() as *const u32;
    // SAFETY: None.
    // DIES HERE: hole-read
    black_box(unsafe { ptr::read_volatile(nowhere) });
}

/// Maps 2 MiB at the start of the device hole to themselves, and gives an address there far behind the devices.
///
/// The first page-directory-pointer table covers 1 GiB an entry, and its entry 3 is empty below 4 GiB of RAM. A page of
/// 2 MiB needs one more table: any free page of zeros.
fn map_hole() -> u64 {
    const PRESENT_WRITABLE: u64 = 0b11;
    const PAGE: u64 = 1 << 7;
    const FREE_PAGE: u64 = 0x1_0000;
    const HOLE: u64 = layout::LOW_RAM_MAX_END.0;
    let pml4 = boot_info().page_tables.start as *const u64;
    // SAFETY: The first page tables and the free page are RAM, mapped read-write at their own addresses, and nothing
    // else in this program uses them. A new entry where none was present needs no TLB flush.
    unsafe {
        let pdpt = (pml4.read() & !0xFFF) as *mut u64;
        (FREE_PAGE as *mut u64).write(HOLE | PAGE | PRESENT_WRITABLE);
        pdpt.add(3).write(FREE_PAGE | PRESENT_WRITABLE);
    }
    black_box(HOLE + 0x10_0000)
}
