//! Deaths that Rust notices: panics, also where there should be none.

use core::arch::asm;
use core::cell::RefCell;
use core::fmt;
use core::hint::black_box;
use core::ptr;

use guest_kernel::exceptions::{self, Next, Vector};

use super::{Death, death};

pub(crate) const DEATHS: &[Death] = &[
    death("index-out-of-bounds", "reads behind the end of an array", index_out_of_bounds),
    death("arithmetic-overflow", "adds, and the sum does not fit", arithmetic_overflow),
    death("checked-division", "divides by zero, checked", checked_division),
    death("missing-value", "expects a value where none is", missing_value),
    death("failed-assertion", "asserts what is not so", failed_assertion),
    death("already-borrowed", "borrows twice what only one may change", already_borrowed),
    death("misaligned-reference", "reads a number at an odd address, checked", misaligned_reference),
    death("out-of-memory", "asks a fixed arena for more than it has", out_of_memory),
    death("double-panic", "panics while it says why it panics", double_panic),
    death("panic-in-handler", "panics in the handler of an exception", panic_in_handler),
    death("fault-in-handler", "faults in the handler of an exception", fault_in_handler),
    death("fault-without-end", "has a handler that mends nothing and returns", fault_without_end),
];

fn index_out_of_bounds() {
    let table = [1, 2, 3];
    // DIES HERE: index-out-of-bounds
    black_box(table[black_box(7)]);
}

fn arithmetic_overflow() {
    // DIES HERE: arithmetic-overflow
    black_box(black_box(255_u8) + 1);
}

fn checked_division() {
    // DIES HERE: checked-division
    black_box(1 / black_box(0));
}

fn missing_value() {
    // DIES HERE: missing-value
    black_box(black_box(None::<u8>).expect("a value is there"));
}

fn failed_assertion() {
    // DIES HERE: failed-assertion
    assert_eq!(black_box(1) + 1, 3, "arithmetic has changed");
}

fn already_borrowed() {
    let cell = RefCell::new(1);
    let _first = cell.borrow_mut();
    // DIES HERE: already-borrowed
    black_box(cell.borrow_mut());
}

/// Unoptimised code checks every pointer that it follows.
fn misaligned_reference() {
    let bytes = black_box([0_u64; 2]);
    let odd = black_box(bytes.as_ptr().wrapping_byte_add(1));
    // SAFETY: None.
    // DIES HERE: misaligned-reference
    black_box(unsafe { *odd });
}

/// The kernel has no heap; this is what one that is used up looks like.
fn out_of_memory() {
    static mut ARENA: [u8; 64] = [0; 64];
    let free = ptr::slice_from_raw_parts_mut((&raw mut ARENA).cast::<u8>(), black_box(64));
    // SAFETY: The arena is this function's own, which runs once.
    let free = unsafe { &mut *free };
    // DIES HERE: out-of-memory
    black_box(free.split_at_mut_checked(black_box(65)).expect("the arena has 65 bytes"));
}

/// What cannot be printed.
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        // DIES HERE: double-panic
        panic!("unspeakable")
    }
}

fn double_panic() {
    panic!("{}", Unspeakable);
}

fn panic_in_handler() {
    exceptions::on(Vector::InvalidOpcode, |_| {
        // DIES HERE: panic-in-handler
        panic!("the handler gives up")
    });
    // SAFETY: None.
    unsafe { asm!("ud2") };
}

fn fault_in_handler() {
    exceptions::on(Vector::InvalidOpcode, |_| {
        // SAFETY: None.
        // DIES HERE: fault-in-handler
        unsafe { ptr::write_volatile(black_box(8_u64) as *mut u64, 1) };
        Next::Resume
    });
    // SAFETY: None.
    unsafe { asm!("ud2") };
}

fn fault_without_end() {
    exceptions::on(Vector::InvalidOpcode, |_| Next::Resume);
    // SAFETY: None.
    unsafe { asm!("ud2") };
}
