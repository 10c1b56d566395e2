//! `walk`: one address from CR3 to the byte, compared with a walker that shares no code.

use shared_abi::{Gpa, Gva};
use vmm::explain::{Walk, When};
use vmm::{PageSize, Vm};

use crate::harness::walker::Walker;
use crate::harness::{Seen, boot, guest, probe, vmm};

fn walk(vm: &Vm, when: When, gva: u64) -> Walk {
    Walk::of(vm, when, Gva(gva)).expect("registers are readable")
}

#[test]
fn walks_end_where_another_walker_does() {
    for (memory, page_size) in [("16M", PageSize::Size4K), ("5G", PageSize::Size2M)] {
        let config = boot("01_hello").memory(memory).with(|config| config.page_size = page_size).config;
        let vm = Vm::build(config).expect("the machine can be built");
        let read = |gpa| vm.memory().read_u64(Gpa(gpa)).ok();
        let walker = Walker {
            read,
            cr3: vm.map().page_tables().expect("long mode has tables").start.0,
            physical_bits: 39,
        };
        for gva in [
            0,
            8,
            0x1000,
            0x3_F000,
            0x4_0008,
            0x10_0000,
            0x10_2345,
            0x40_0123,
            0xC000_0000,
            1 << 32,
            1 << 47,
            !0,
        ] {
            let walk = walk(&vm, When::Start, gva);
            let other = walker.walk(gva);
            let page = walk
                .page
                .as_ref()
                .map(|page| (page.gpa.0, page.page_size, page.rights.writable, page.rights.executable));
            let expected = other.ok().map(|page| (page.gpa, page.page_size, page.writable, page.executable));
            assert_eq!(page, expected, "{memory}: {gva:#x}\n{walk}");
            for step in &walk.steps {
                assert_eq!(step.entry.map(|entry| entry.0), read(step.entry_gpa.0), "{gva:#x}\n{walk}");
                assert_eq!(
                    step.entry_hva.map(|hva| hva.0),
                    vm.memory().hva(Gpa(step.entry_gpa.0)),
                    "{gva:#x}"
                );
            }
            let hva = walk.page.and_then(|page| page.hva);
            assert_eq!(
                hva.map(|hva| hva.0),
                other.ok().and_then(|page| vm.memory().hva(Gpa(page.gpa))),
                "{gva:#x}"
            );
        }
    }
}

#[test]
fn a_page_that_the_guest_mapped_is_there_at_its_stop_only() {
    const HOLE: u64 = 0xC000_0000;
    let before = Vm::build(probe("write-hole").config).expect("the machine can be built");
    assert_eq!(walk(&before, When::Start, HOLE).reason, "PDPT[3] not present");

    let finished = probe("write-hole").run();
    let walk = walk(&finished.vm, When::Stop, HOLE + 0x10_0000);
    assert_eq!(walk.reason, "PD[0] maps a page of 2 MiB");
    assert_eq!(walk.steps.last().map(|step| step.table_gpa.0), Some(0x1_0000));
    let page = walk.page.as_ref().expect("mapped");
    assert_eq!((page.gpa.0, page.hva, page.rights.to_string().as_str()), (0xC010_0000, None, "rwx"));
    assert!(walk.to_string().contains("PS=1"), "{walk}");
}

#[test]
fn the_tables_of_a_guest_that_died_are_walked() {
    let finished = probe("read-null").run();
    let died = walk(&finished.vm, When::Stop, 0x10_0000);
    assert_eq!(died.reason, "PT[256] maps a page of 4 KiB");
    // Where the KVM resets a vCPU that dies, the walk says whose tables these are; else they are the guest's own.
    let cpu = finished.vm.cpu_state().expect("registers are readable");
    let was_reset = cpu.page_tables().is_none() || cpu.general.rip == 0xFFF0;
    assert_eq!(died.moment.note.is_some(), was_reset, "{died}");
    assert_eq!(died.to_string().contains("tables that CR3 pointed to at the start"), was_reset, "{died}");
    assert!(walk(&finished.vm, When::Stop, 8).to_string().ends_with("PT[0] not present"));
}

fn walked(program: &str, words: &[&str]) -> Seen {
    let image = guest(program);
    vmm(&[&["walk", image.to_str().expect("UTF-8")][..], words].concat())
}

#[test]
fn addresses_are_numbers_or_functions() {
    let seen = walked("01_hello", &["--json", "_start", "0x100000", "1048576", "main"]);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    let json: serde_json::Value = serde_json::from_str(&seen.stdout).expect("JSON");
    let gva: Vec<_> = json
        .as_array()
        .expect("a list")
        .iter()
        .map(|walk| walk["gva"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(gva[..3], ["0x100000"; 3]);
    assert_eq!(json[0]["symbol"], "_start");
    assert!(json[3]["symbol"].as_str().is_some_and(|name| name.ends_with("main")), "{json}");
    assert_eq!(json[0]["steps"][0]["level"], "PML4");
    assert_eq!(
        json[0]["steps"][0]["bits"][0],
        serde_json::json!({ "name": "P", "low": 0, "high": 0, "value": "0x1" })
    );
    assert_eq!(json[0]["page"]["rights"]["executable"], true);
}

#[test]
fn what_is_no_address_is_refused() {
    let seen = walked("01_hello", &["nonesuch"]);
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(2), "vmm: the image has no function `nonesuch`\n"));
    for words in [&["0xyz"][..], &[]] {
        assert_eq!(walked("01_hello", words).code, Some(2), "{words:?}");
    }
}

#[test]
fn a_walk_at_stop_runs_the_guest_with_its_arguments() {
    let seen = walked("probe", &["--at-stop", "0xc0000000", "--", "write-hole"]);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.stdout.contains("PML4[0] PDPT[3] PD[0]"), "{seen:?}");
    assert!(seen.stdout.ends_with("GPA 0xc0000000, where no RAM is\n"), "{seen:?}");
    assert!(seen.stderr.starts_with("vmm: the guest died"), "{seen:?}");
}
