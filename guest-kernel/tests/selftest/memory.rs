//! Memory as the host sees it through the guest's page tables, and the guest itself.

use core::hint::black_box;

use guest_kernel::hypercall::translate;
use guest_kernel::{Gva, boot_info, device_memory, guest_test};
use shared_abi::layout;

static CONSTANT: u64 = 1;

#[guest_test(max_exits = 1)]
fn code_is_mapped_to_itself() {
    let own = code_is_mapped_to_itself as *const () as u64;
    assert_eq!(translate(Gva(own)).map(|translation| translation.gpa), Some(own));
}

#[guest_test]
fn constants_are_mapped_to_themselves() {
    let own = &raw const CONSTANT as u64;
    assert_eq!(translate(Gva(own)).map(|translation| translation.gpa), Some(own));
}

#[guest_test]
fn the_last_byte_of_ram_is_mapped_and_the_next_is_not() {
    let end = boot_info().ram[0].end;
    assert!(translate(Gva(end - 1)).is_some());
    assert_eq!(translate(Gva(end)), None);
}

#[guest_test]
fn the_null_page_is_not_mapped() {
    assert_eq!(translate(Gva(layout::NULL_PAGE.0)), None);
    assert_eq!(translate(Gva(layout::NULL_PAGE.0 + layout::NULL_PAGE_SIZE - 1)), None);
}

#[guest_test]
fn the_stack_has_a_guard() {
    assert_eq!(translate(Gva(layout::STACK_GUARD.0)), None);
    assert!(translate(Gva(layout::STACK.0)).is_some());
}

#[guest_test]
fn an_address_that_is_not_canonical_leads_nowhere() {
    assert_eq!(translate(Gva(1 << 47)), None);
}

#[guest_test]
fn the_hole_is_mapped_when_a_device_is_wanted() {
    let console = Gva(layout::CONSOLE_MMIO.0);
    assert_eq!(translate(console), None);
    device_memory::map_hole().expect("the VMM's page tables");
    device_memory::map_hole().expect("a second time changes nothing");
}

#[guest_test(max_exits = 0)]
fn free_ram_is_zero() {
    let free = boot_info().ram[0].end - 8;
    // SAFETY: The last word of RAM is mapped read-write, and no image and no structure lies there on 16 MiB.
    assert_eq!(unsafe { (black_box(free) as *const u64).read_volatile() }, 0);
}

#[guest_test(max_exits = 0)]
fn free_ram_keeps_what_was_written() {
    let free = (boot_info().ram[0].end - 8) as *mut u64;
    // SAFETY: As above; nobody else knows the place.
    unsafe {
        free.write_volatile(0x1122_3344_5566_7788);
        assert_eq!(free.read_volatile(), 0x1122_3344_5566_7788);
    }
}
