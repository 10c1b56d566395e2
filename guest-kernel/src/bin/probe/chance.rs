//! Deaths that depend on what the host has said, and on when: what a repeated run must be told again.

use core::hint::black_box;

use guest_kernel::files::File;
use guest_kernel::hypercall;
use guest_kernel::io::Read;

use crate::{Deed, number};

pub(crate) const DEEDS: &[Deed] =
    &[("fault-by-chance", fault_by_chance), ("compute-and-fault", compute_and_fault)];

/// Writes somewhere into page 0: where, decide random numbers, the clocks, typed words and a file of the host.
fn fault_by_chance() {
    let mut bytes = [0; 64];
    let mut sum = hypercall::monotonic_ns() ^ hypercall::wall_ns();
    let mut add =
        |bytes: &[u8]| sum = bytes.iter().fold(sum, |sum, &byte| sum.rotate_left(5) ^ u64::from(byte));
    hypercall::random_bytes(&mut bytes).expect("64 bytes");
    add(&bytes);
    let count = hypercall::console_read(&mut bytes).expect("a console");
    add(bytes.get(..count).unwrap_or_default());
    let count = File::open("file").and_then(|mut file| file.read(&mut bytes)).expect("a granted directory");
    add(bytes.get(..count).unwrap_or_default());
    write_in_page_0(sum);
}

/// Computes for as many rounds as its number says, and exits nowhere in between.
fn compute_and_fault() {
    let sum = (0..number()).fold(0, |sum, round| black_box(sum ^ round));
    write_in_page_0(sum);
}

fn write_in_page_0(sum: u64) {
    let address = black_box(sum % 512 * 8);
    // SAFETY: None: this is the crime. Page 0 is not mapped, so nothing is changed.
    unsafe { core::ptr::write_volatile(address as *mut u64, sum) };
}
