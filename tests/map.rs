//! `map`: one table of guest memory, proven by a walker that shares no code, and a linter that finds planted sins.

use std::time::{Duration, Instant};

use shared_abi::Gpa;
use vmm::explain::{MemoryMap, Moment, Purpose, Row, Sin, TableTree, When};
use vmm::{Contract, KernelSource, PageSize, Vm, VmConfig};

use crate::harness::elf::{self, Elf};
use crate::harness::walker::{Fault, Walker};
use crate::harness::{boot, guest, patiently, probe, vmm};

fn map_of(vm: &Vm, when: When) -> MemoryMap {
    MemoryMap::of(vm, when, false).expect("registers are readable")
}

/// A machine for an image made by a test, before its first instruction.
fn machine(image: &Elf) -> Vm {
    let mut config = VmConfig::new(KernelSource::Bytes(image.to_bytes().into()));
    config.contract = Contract::None;
    config.timeout = Some(patiently(Duration::from_secs(20)));
    Vm::build(config).expect("the image is right")
}

fn sins(map: &MemoryMap) -> Vec<Sin> {
    map.findings.iter().map(|finding| finding.sin).collect()
}

#[test]
fn every_row_is_what_another_walker_finds() {
    for (memory, page_size) in [
        ("2M", PageSize::Size2M),
        ("16M", PageSize::Size2M),
        ("16M", PageSize::Size4K),
        ("5G", PageSize::Size2M),
    ] {
        let config = boot("01_hello").memory(memory).with(|config| config.page_size = page_size).config;
        let vm = Vm::build(config).expect("the machine can be built");
        let map = map_of(&vm, When::Start);
        let read = |gpa| vm.memory().read_u64(Gpa(gpa)).ok();
        let walker = Walker { read, cr3: map.moment.cr3.0, physical_bits: 39 };

        for row in &map.rows {
            let last = row.size - 1;
            match row.gva {
                Some(gva) => {
                    for offset in [0, last] {
                        let page = walker.walk(gva.start + offset).expect("the row says so");
                        let rights = row.rights.expect("mapped");
                        assert_eq!(page.gpa, row.gpa.start + offset, "{row:?}");
                        assert_eq!(Some(page.page_size), row.page_size, "{row:?}");
                        assert_eq!(
                            (page.writable, page.executable, page.user),
                            (rights.writable, rights.executable, rights.user)
                        );
                    }
                }
                // Every address that is mapped is mapped to itself.
                None => assert!(matches!(walker.walk(row.gpa.start), Err(Fault::NotPresent(_))), "{row:?}"),
            }
            assert_eq!(row.hva.map(|hva| hva.start), vm.memory().hva(Gpa(row.gpa.start)), "{row:?}");
            assert_eq!(row.hva.is_some(), row.purpose.is_ram(), "{row:?}");
        }
        check_that_nothing_is_left_out(&map, &vm);
        assert_eq!(sins(&map), [], "{memory}: {:?}", map.findings);
    }
}

/// Rows follow each other without gap or overlap, up to the end of the hole or of RAM.
fn check_that_nothing_is_left_out(map: &MemoryMap, vm: &Vm) {
    let mut next = 0;
    for row in &map.rows {
        assert_eq!(row.gpa.start, next, "{row:?}");
        next = row.gpa.end();
    }
    let [_, high] = vm.map().ram();
    assert_eq!(next, high.end.max(4 << 30));
    let ram: u64 = map.rows.iter().filter(|row| row.purpose.is_ram()).map(|row| row.size).sum();
    assert_eq!(ram, vm.memory().size().bytes());
}

#[test]
fn tables_are_named_one_by_one_and_folded_when_there_are_many() {
    let table_rows = |map: &MemoryMap| -> Vec<Row> {
        map.rows.iter().filter(|row| row.purpose == Purpose::PageTable).cloned().collect()
    };
    let few = Vm::build(boot("01_hello").config).expect("the machine can be built");
    let names: Vec<_> = table_rows(&map_of(&few, When::Start)).into_iter().map(|row| row.what).collect();
    assert_eq!(
        names,
        [
            "PML4, where CR3 points",
            "PDPT for GVA 0x0..0x8000000000",
            "PD for GVA 0x0..0x40000000",
            "PT for GVA 0x0..0x200000"
        ]
    );

    let config = boot("01_hello").memory("128M").with(|config| config.page_size = PageSize::Size4K).config;
    let many = Vm::build(config).expect("the machine can be built");
    let folded = table_rows(&map_of(&many, When::Start));
    assert_eq!(folded[1].what, "1 PDPT, 1 PD, 64 PTs for GVA 0x0..0x8000000000");
    assert_eq!((folded.len(), folded[1].size), (2, 66 << 12));
    let all = MemoryMap::of(&many, When::Start, true).expect("registers are readable");
    assert_eq!(table_rows(&all).len(), 67);
}

#[test]
fn tables_that_the_guest_built_are_walked_where_it_stopped() {
    let finished = probe("write-hole").run();
    let map = map_of(&finished.vm, When::Stop);

    let own = map.rows.iter().find(|row| row.gpa.start == 0x1_0000).expect("RAM");
    assert_eq!((own.purpose, own.what.as_str()), (Purpose::PageTable, "PD for GVA 0xc0000000..0x100000000"));
    let device = map.rows.iter().find(|row| row.purpose == Purpose::Device).expect("the console");
    assert_eq!((device.gva, device.page_size, device.hva), (Some(device.gpa), Some(2 << 20), None));
    assert_eq!(sins(&map), [Sin::WritableAndExecutable, Sin::BeyondRam]);
    // The deed maps 2 MiB at the start of the hole; two pages of them are devices.
    assert_eq!(map.findings[1].gpa.map(|gpa| (gpa.start, gpa.end())), Some((0xC000_2000, 0xC020_0000)));
}

#[test]
fn an_image_that_asks_for_all_rights_is_reported() {
    let vm = machine(&Elf::new(0x10_0000).with(elf::Segment::new(0x10_0000, elf::RWX, &[0xF4])));
    let map = map_of(&vm, When::Start);
    assert_eq!(sins(&map), [Sin::WritableAndExecutable]);
    assert_eq!(map.findings[0].gva.map(|gva| (gva.start, gva.end())), Some((0x10_0000, 0x10_1000)));
}

/// Writes RAX, an address in the first table and 3, to every entry of that table but the first; then exits.
const POINT_TO_ITSELF: [u8; 28] = [
    0x0F, 0x20, 0xDF, // mov rdi, cr3
    0x48, 0x8D, 0x47, 0x03, // lea rax, [rdi + 3]
    0xB9, 0xFF, 0x01, 0x00, 0x00, // mov ecx, 511
    0x48, 0x83, 0xC7, 0x08, // add rdi, 8
    0x48, 0x89, 0x07, // mov [rdi], rax
    0xFF, 0xC9, // dec ecx
    0x75, 0xF5, // jnz to the `add`
    0xB0, 0x00, // mov al, 0
    0xE6, 0xF4, // out 0xF4, al
    0xF4,
];

#[test]
fn tables_full_of_themselves_are_cut_in_time() {
    let mut vm = machine(&Elf::new(0x10_0000).with(elf::Segment::new(0x10_0000, elf::RX, &POINT_TO_ITSELF)));
    let report = vm.run().expect("the host can do its work");
    assert_eq!(report.stop, vmm::StopReason::Exited { code: 0 });

    let start = Instant::now();
    let map = map_of(&vm, When::Stop);
    let tree = TableTree::of(&vm, map.moment.clone());
    let (map_size, tree_size) = (map.to_string().len(), serde_json::to_string(&tree).expect("JSON").len());

    assert!(start.elapsed() < patiently(Duration::from_secs(30)), "{:?}", start.elapsed());
    assert!(
        map.cut.as_deref().is_some_and(|cut| cut.contains("nothing was looked at from GVA")),
        "{:?}",
        map.cut
    );
    assert!(tree.is_cut && sins(&map).contains(&Sin::Alias));
    assert!(map_size < 100 << 20 && tree_size < 10 << 20, "{map_size} {tree_size}");
}

#[test]
fn the_map_of_a_dead_guest_can_be_made() {
    for deed in ["read-null", "overflow-stack"] {
        let finished = probe(deed).run();
        let map = map_of(&finished.vm, When::Stop);
        // A KVM that resets a vCPU which died leaves no CR3; then the tables are those of the start.
        assert_eq!(
            map.moment.cr3.0,
            finished.vm.map().page_tables().expect("long mode has tables").start.0,
            "{deed}"
        );
        assert!(map.rows.iter().any(|row| row.what == ".text"), "{deed}");
    }
}

#[test]
fn the_command_shows_the_table_or_json() {
    let image = guest("01_hello");
    let image = image.to_str().expect("UTF-8");
    let text = vmm(&["map", image]);
    assert_eq!((text.code, text.stderr.as_str()), (Some(0), ""));
    for part in ["GPA ", "boot info", ".text", "PML4, where CR3 points", "stack guard", "device: console"] {
        assert!(text.stdout.contains(part), "{part}\n{}", text.stdout);
    }
    assert!(text.stdout.ends_with("nothing is wrong with these mappings\n"), "{}", text.stdout);

    let json = vmm(&["map", "--json", "--at-stop", image]);
    assert_eq!((json.code, json.stderr.as_str()), (Some(0), "hello from the guest\n"));
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["moment"]["when"], "stop");
    assert_eq!(json["rows"][0]["what"], "null page");
    assert_eq!(json["rows"][1]["gva"]["start"], "0x1000");
}

#[test]
fn a_tree_has_every_mapping_once() {
    let vm = Vm::build(boot("01_hello").config).expect("the machine can be built");
    let tree = TableTree::of(&vm, Moment::of(&vm, When::Start).expect("registers are readable"));
    let json = serde_json::to_value(&tree).expect("JSON");
    assert_eq!(json["root"]["level"], "PML4");
    let pd = &json["root"]["entries"][0]["leads"]["table"]["entries"][0]["leads"]["table"];
    assert_eq!(
        (&pd["level"], &pd["entries"][1]["index"], &pd["entries"][1]["count"]),
        (&"PD".into(), &1.into(), &7.into())
    );
    assert_eq!(pd["entries"][1]["leads"]["pages"]["page_size"], 2 << 20);
    assert!(!tree.is_cut);
}
