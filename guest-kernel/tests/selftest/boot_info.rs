//! What the host told the kernel at start.

use guest_kernel::{BootInfo, boot_info, guest_test};
use shared_abi::{addr::PAGE_SIZE, layout};

#[guest_test(max_exits = 0)]
fn the_boot_info_is_the_one_of_our_contract() {
    assert_eq!((boot_info().magic, boot_info().version), (BootInfo::MAGIC, BootInfo::VERSION));
}

#[guest_test]
fn ram_starts_at_zero_and_is_whole_pages() {
    let ram = boot_info().ram[0];
    assert_eq!(ram.start, 0);
    assert!(ram.size() >= layout::MIN_RAM_SIZE && ram.size().is_multiple_of(PAGE_SIZE));
}

#[guest_test]
fn a_small_machine_has_no_ram_above_the_hole() {
    assert_eq!(boot_info().ram[1].size(), 0);
}

#[guest_test]
fn this_test_lies_inside_the_image() {
    let image = boot_info().image;
    let own = this_test_lies_inside_the_image as *const () as u64;
    assert!((image.start..image.end).contains(&own), "{image:x?}");
}

#[guest_test]
fn image_page_tables_and_stack_keep_apart() {
    let (image, tables) = (boot_info().image, boot_info().page_tables);
    assert!(tables.end <= image.start || image.end <= tables.start);
    assert!(layout::STACK_END.0 <= tables.start && layout::STACK_END.0 <= image.start);
}

#[guest_test]
fn the_stack_is_where_the_layout_says() {
    let local = 0_u8;
    let address = &raw const local as u64;
    assert!((layout::STACK.0..layout::STACK_END.0).contains(&address));
}

#[guest_test]
fn there_is_one_cpu() {
    assert_eq!(boot_info().vcpu_count, 1);
}
