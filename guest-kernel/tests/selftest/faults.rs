//! What the page tables forbid. There are no handlers yet, so whoever tries dies of a triple fault.

use core::hint::black_box;

use guest_kernel::{boot_info, guest_test};
use shared_abi::layout;

static CONSTANT: [u8; 4] = *b"read";

fn read(address: u64) {
    // SAFETY: None: this is the crime. Where nothing is mapped, reading faults, and the test wants it to.
    black_box(unsafe { (black_box(address) as *const u8).read_volatile() });
}

fn write(address: u64) {
    // SAFETY: None: this is the crime. The page cannot be written, so nothing changes.
    unsafe { (black_box(address) as *mut u8).write_volatile(0) };
}

fn execute(address: u64) {
    // SAFETY: None: this is the crime. The page cannot be executed, so the call itself faults.
    let code: extern "C" fn() = unsafe { core::mem::transmute(black_box(address) as *const ()) };
    code();
}

#[guest_test(should_fault, max_exits = 0)]
fn reading_through_null_faults() {
    read(layout::NULL_PAGE.0);
}

#[guest_test(should_fault, max_exits = 0)]
fn reading_below_the_stack_faults() {
    read(layout::STACK_GUARD.0);
}

#[guest_test(should_fault, max_exits = 0)]
fn reading_behind_ram_faults() {
    read(boot_info().ram[0].end);
}

#[guest_test(should_fault, max_exits = 0)]
fn writing_a_constant_faults() {
    write(CONSTANT.as_ptr() as u64);
}

#[guest_test(should_fault, max_exits = 0)]
fn writing_code_faults() {
    write(writing_code_faults as *const () as u64);
}

#[guest_test(should_fault, max_exits = 0)]
fn writing_the_boot_info_faults() {
    write(layout::BOOT_INFO.0);
}

#[guest_test(should_fault, max_exits = 0)]
fn executing_the_stack_faults() {
    execute(layout::STACK.0);
}

#[guest_test(should_fault, max_exits = 0)]
fn executing_a_constant_faults() {
    execute(CONSTANT.as_ptr() as u64);
}
