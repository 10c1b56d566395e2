//! From nothing to the guest's first words.

use shared_abi::{BootInfo, layout};
use vmm::{Backing, CpuidUse, PageSize};

use crate::harness::{Boot, boot, guest, probe};

#[test]
fn hello_prints_its_line_with_one_exit_a_byte_and_ends() {
    let finished = boot("01_hello").run();

    assert_eq!(finished.report.exits.pio_out, "hello from the guest\n".len() as u64 + 1, "and one to end");
    assert_eq!(finished.report.exits.total(), finished.report.exits.pio_out);
    assert_eq!(finished.succeeded(), "hello from the guest\n");
}

#[test]
fn every_size_of_memory_and_page_boots() {
    for memory in ["2M", "2052K", "16M", "3G", "5G", "64G"] {
        for page_size in [PageSize::Size4K, PageSize::Size2M] {
            // 64 GiB in 4 KiB pages are 128 MiB of tables: correct, and slow in an unoptimised build.
            if (memory, page_size) == ("64G", PageSize::Size4K) {
                continue;
            }
            let finished = boot("01_hello").memory(memory).with(|config| config.page_size = page_size).run();
            assert_eq!(finished.succeeded(), "hello from the guest\n", "{memory} in {page_size} pages");
        }
    }
}

#[test]
fn gigabyte_pages_boot_or_are_refused_with_the_reason() {
    let has_them = host_offers_gigabyte_pages();

    let mut config = boot("01_hello").memory("5G").config;
    config.page_size = PageSize::Size1G;
    match vmm::Vm::build(config) {
        Ok(mut vm) => {
            assert!(has_them);
            assert_eq!(vm.run().expect("the host works").stop.process_exit_code(), 0);
        }
        Err(error) => {
            assert!(!has_them, "{error}");
            assert!(error.to_string().contains("--page-size 2m"), "{error}");
        }
    }
}

/// Asked of `cpuid` as the VMM asks KVM: leaf 80000001h, EDX bit 26, as guests see it.
fn host_offers_gigabyte_pages() -> bool {
    host_leaf(0x8000_0001).edx & 1 << 26 != 0
}

/// What KVM can give of a leaf of CPUID.
fn host_leaf(function: u32) -> kvm_bindings::kvm_cpuid_entry2 {
    let kvm = kvm_ioctls::Kvm::new().expect("/dev/kvm");
    let cpuid = kvm.get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES).expect("CPUID");
    cpuid.as_slice().iter().copied().find(|entry| entry.function == function).unwrap_or_default()
}

#[test]
fn a_guest_that_uses_no_feature_starts_without_cpuid_and_any_other_machine_has_it() {
    /// What a CPU addresses that does not say. Intel SDM vol. 3A, 4.1.4.
    const UNSAID: u32 = 36;
    let said = host_leaf(0x8000_0008).eax & 0xFF;
    let bits = |machine: Boot| vmm::Vm::build(machine.config).expect("a machine").address_bits();

    assert_eq!(bits(boot("01_hello")), UNSAID);
    assert_eq!(bits(boot("01_hello").with(|config| config.cpuid = CpuidUse::Always)), said);
    assert_eq!(bits(boot("01_hello").with(|config| config.page_size = PageSize::Size2M).memory("64G")), said);
    assert_eq!(bits(probe("cpuid")), said, "its image holds the instruction");
    assert_ne!(probe("cpuid").run().succeeded(), "0\n");
}

#[test]
fn huge_pages_back_the_guest() {
    let finished =
        boot("01_hello").with(|config| config.backing = Backing { huge: true, mergeable: false }).run();
    let hva = finished.vm.memory().hva(layout::KERNEL).expect("RAM");
    assert_eq!(hva % (2 << 20), layout::KERNEL.0, "RAM starts at a multiple of 2 MiB");
    assert_eq!(finished.succeeded(), "hello from the guest\n");
}

#[test]
fn the_guest_reads_the_boot_info_the_host_wrote() {
    let finished = probe("boot-info").memory("5G").run();

    let mut page = [0; size_of::<BootInfo>()];
    finished.vm.memory().read(layout::BOOT_INFO, &mut page).expect("RAM");
    assert_eq!(u64::from_le_bytes(page[..8].try_into().expect("8 bytes")), BootInfo::MAGIC);
    let map = finished.vm.map();
    let (image, tables) = (map.image(), *map.page_tables().expect("long mode has tables"));
    let console = finished.succeeded();
    for number in [5 << 30, image.start, image.end, tables.start.0, tables.end.0] {
        // 5 GiB of RAM end 1 GiB higher, because of the hole.
        let number = if number == 5 << 30 { 6 << 30 } else { number };
        assert!(console.contains(&format!("{number:#x}")), "{number:#x} in\n{console}");
    }
}

#[test]
fn arguments_arrive_as_they_were_typed() {
    let arguments = ["arguments", "two words", "", "ä€🦀"];
    let console = boot("probe").arguments(&arguments).run().succeeded();
    assert_eq!(console, "[arguments]\n[two words]\n[]\n[ä€🦀]\n");
}

#[test]
fn arguments_that_do_not_fit_are_refused_with_their_size() {
    let long = "x".repeat(layout::ARGUMENTS_MAX_SIZE as usize);
    let config = boot("probe").arguments(&[&long]).config;
    let error = vmm::Vm::build(config).expect_err("one byte too many").to_string();
    assert!(error.contains("57345 bytes") && error.contains("57344"), "{error}");
}

#[test]
fn our_kernel_is_linked_where_the_contract_says() {
    use object::{Object, ObjectSegment};
    let bytes = std::fs::read(guest("01_hello")).expect("the guest was built");
    let elf = object::File::parse(&*bytes).expect("an ELF file");
    let lowest = elf.segments().map(|segment| segment.address()).min();
    assert_eq!(lowest, Some(layout::KERNEL.0));
    assert_eq!(elf.entry(), layout::KERNEL.0, "_start comes first");
}
