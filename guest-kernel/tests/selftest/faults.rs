//! What the page tables forbid: whoever tries dies of a page fault, at the address that was touched.

use core::hint::black_box;

use guest_kernel::guest_test;
use shared_abi::layout;

static CONSTANT: [u8; 4] = *b"read";

/// Behind the 16 MiB of a test's machine.
const BEHIND_RAM: u64 = 16 << 20;

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

#[guest_test(should_fault = PageFault, address = layout::NULL_PAGE.0, max_exits = 0)]
fn reading_through_null_faults() {
    read(layout::NULL_PAGE.0);
}

#[guest_test(should_fault = PageFault, address = layout::STACK_GUARD.0, max_exits = 0)]
fn reading_below_the_stack_faults() {
    read(layout::STACK_GUARD.0);
}

#[guest_test(should_fault = PageFault, address = layout::FAULT_STACK_GUARD.0, max_exits = 0)]
fn reading_below_the_fault_stack_faults() {
    read(layout::FAULT_STACK_GUARD.0);
}

#[guest_test(should_fault = PageFault, address = layout::NMI_STACK_GUARD.0, max_exits = 0)]
fn reading_below_the_nmi_stack_faults() {
    read(layout::NMI_STACK_GUARD.0);
}

#[guest_test(should_fault = PageFault, address = layout::MACHINE_CHECK_STACK_GUARD.0, max_exits = 0)]
fn reading_below_the_machine_check_stack_faults() {
    read(layout::MACHINE_CHECK_STACK_GUARD.0);
}

#[guest_test(should_fault = PageFault, address = BEHIND_RAM, max_exits = 0)]
fn reading_behind_ram_faults() {
    read(BEHIND_RAM);
}

#[guest_test(should_fault = PageFault, max_exits = 0)]
fn writing_a_constant_faults() {
    write(CONSTANT.as_ptr() as u64);
}

#[guest_test(should_fault = PageFault, max_exits = 0)]
fn writing_code_faults() {
    write(writing_code_faults as *const () as u64);
}

#[guest_test(should_fault = PageFault, address = layout::BOOT_INFO.0, max_exits = 0)]
fn writing_the_boot_info_faults() {
    write(layout::BOOT_INFO.0);
}

#[guest_test(should_fault = PageFault, address = layout::STACK.0, max_exits = 0)]
fn executing_the_stack_faults() {
    execute(layout::STACK.0);
}

#[guest_test(should_fault = PageFault, max_exits = 0)]
fn executing_a_constant_faults() {
    execute(CONSTANT.as_ptr() as u64);
}
