//! Page walks of 32-bit code, of two and three levels, compared with walkers that share no code; and how they are told.

use proptest::prelude::*;
use shared_abi::{Gpa, Gva};
use vmm::boot::guest_map::GuestMap;
use vmm::boot::page_tables;
use vmm::config::PageSize;
use vmm::explain::{MappedRun, Rules, scan};
use vmm::page_walk::{Mapping, PageTables, Paging, Walker, trace, walk};
use vmm::{MemorySize, StartMode};

use crate::harness::vmm;
use crate::harness::walker32::{Page, three_levels, two_levels};

/// Words that a walk meets wherever it goes: most of them present, many of them leading to each other.
fn memory() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec((any::<u64>(), 0..8u8), 97).prop_map(|words| {
        let word = |(word, kind): &(u64, u8)| match kind {
            // As they come; with rare bits cleared; and halves that are both well-formed entries.
            0 => *word,
            1..4 => (word & 0x8000_0000_0003_F007) | 1,
            4 => (word & 0x8000_0000_FFE0_1087) | 0x81,
            _ => (word & 0x00FF_F007_00FF_F007) | 0x1_0000_0001,
        };
        words.iter().map(word).collect()
    })
}

/// The word at `gpa`; some places are no RAM.
fn word(words: &[u64], gpa: u64) -> Option<u64> {
    let word = words.get((gpa / 8) as usize % words.len()).copied();
    word.filter(|_| gpa / 8 % 89 != 7)
}

fn page(mapping: Mapping) -> Page {
    let Mapping { gpa, page_size, writable, executable, user } = mapping;
    Page { gpa: gpa.0, size: page_size.bytes(), writable, executable, user }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn two_levels_are_walked_as_the_manual_says(words in memory(), cr3: u32, large_pages: bool, gva: u32) {
        let half = |gpa: u64| word(&words, gpa).map(|word| if gpa & 4 == 0 { word as u32 } else { (word >> 32) as u32 });
        let tables = PageTables { cr3: cr3.into(), paging: Paging::Bits32 { large_pages } };
        let read = |gpa: Gpa| word(&words, gpa.0);
        let walked = walk(tables, Gva(gva.into()), read);
        prop_assert_eq!(walked.ok().map(page), two_levels(cr3.into(), large_pages, gva, half));
        prop_assert_eq!(trace(tables, Gva(gva.into()), read).end, walked);
    }

    #[test]
    fn three_levels_are_walked_as_the_manual_says(words in memory(), cr3: u32, gva: u32) {
        let tables = PageTables { cr3: cr3.into(), paging: Paging::Pae };
        let read = |gpa: Gpa| word(&words, gpa.0);
        let walked = walk(tables, Gva(gva.into()), read);
        prop_assert_eq!(walked.ok().map(page), three_levels(cr3.into(), gva, |gpa| word(&words, gpa)));
        prop_assert_eq!(trace(tables, Gva(gva.into()), read).end, walked);
    }

    #[test]
    fn a_walker_that_remembers_its_last_table_walks_the_same(words in memory(), cr3: u32, gva: u32, pages in 1..2048u32) {
        for paging in [Paging::Bits32 { large_pages: true }, Paging::Pae] {
            let tables = PageTables { cr3: cr3.into(), paging };
            let mut walker = Walker::new(tables);
            for gva in [gva, gva.wrapping_add(pages << 12), gva] {
                let read = |gpa: Gpa| word(&words, gpa.0);
                let gva = Gva(gva.into());
                prop_assert_eq!(walker.walk(gva, read), walk(tables, gva, read));
            }
        }
    }
}

#[test]
fn the_first_tables_map_every_address_to_itself_in_the_largest_pages() {
    for (mode, page_size) in [(StartMode::Paged32, PageSize::Size4M), (StartMode::Pae, PageSize::Size2M)] {
        let memory = MemorySize::new(16 << 20).expect("a size of RAM");
        let map = GuestMap::plan_for(mode, memory, &[], PageSize::Size2M).expect("it fits");
        let tables = map.first_tables().expect("the mode has tables");
        let mut ram: std::collections::HashMap<Gpa, Box<[u64; 512]>> = Default::default();
        page_tables::write(&map, &mut |gpa, entries| {
            let table = ram.entry(gpa.page_start()).or_insert_with(|| Box::new([0; 512]));
            let first = (gpa.page_offset() / 8) as usize;
            let places = &mut table[first..first + entries.len()];
            assert!(places.iter().all(|entry| *entry == 0), "{gpa} is written once");
            places.copy_from_slice(entries);
        });
        assert_eq!(ram.len() as u64, page_tables::count(&map), "{mode}");

        let read = |gpa: Gpa| ram.get(&gpa.page_start()).map(|table| table[(gpa.page_offset() / 8) as usize]);
        for gva in [0, 0x1234, 0x20_0000, 0x3FFF_FFFF, 0x4000_0000, 0xC000_0123, 0xFFFF_FFFF] {
            let found = match mode {
                StartMode::Pae => three_levels(tables.cr3, gva, |gpa| read(Gpa(gpa))),
                _ => two_levels(tables.cr3, true, gva, |gpa| {
                    read(Gpa(gpa & !7)).map(|word| (word >> ((gpa & 4) * 8)) as u32)
                }),
            };
            let expected = Page {
                gpa: gva.into(),
                size: page_size.bytes(),
                writable: true,
                executable: true,
                user: false,
            };
            assert_eq!(found, Some(expected), "{mode}: {gva:#x}");
        }
        let found = scan(tables, Rules::WIDEST, Default::default(), |gpa| ram.get(&gpa).cloned());
        let whole = |run: &MappedRun| (run.gva.start, run.gva.size, run.gpa.0, run.page_size);
        let runs: Vec<_> = found.runs.iter().map(whole).collect();
        assert_eq!(runs, [(0, 1 << 32, 0, page_size.bytes())], "{mode}");
        assert!(found.bad.is_empty() && found.cut.is_none(), "{mode}: {:?}", found.bad);
    }
}

/// A flat image of one instruction, `hlt`, and what a command of the VMM says of it in this mode.
fn told(command: &[&str], mode: &str, words: &[&str]) -> String {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let image = folder.path().join("image");
    std::fs::write(&image, [0xF4]).expect("a writable directory");
    let start = ["--mode", mode, "--load-at", "0x7c00", image.to_str().expect("UTF-8")];
    let seen = vmm(&[command, &start, words].concat());
    assert_eq!(seen.code, Some(0), "{seen:?}");
    seen.stdout
}

#[test]
fn a_walk_tells_that_paging_is_off() {
    for mode in ["real", "protected"] {
        let walk = told(&["walk"], mode, &["0x7c00"]);
        assert!(walk.contains("paging is off: the address is a physical one"), "{walk}");
        assert!(walk.contains("\n  GPA 0x7c00\n"), "{walk}");
        let map = told(&["map"], mode, &[]);
        assert!(map.contains("paging is off") && map.contains("kernel image"), "{map}");
        assert!(map.contains("nothing is wrong"), "{map}");
        let explain = told(&["explain"], mode, &[]);
        assert!(explain.contains("none: paging is off, and every address is a physical one"), "{explain}");
    }
}

#[test]
fn a_walk_tells_each_level_of_its_mode() {
    use crate::harness::needs::needs;
    needs!(Paging32);
    let walk = told(&["walk"], "paged32", &["0x401234"]);
    assert!(walk.contains("PD[1]\n") && walk.contains(": 0x00400083\n"), "{walk}");
    assert!(walk.contains("PS=1") && walk.contains("PD[1] maps a page of 4 MiB, rwx"), "{walk}");
    let walk = told(&["walk"], "pae", &["0x40201234", "0x100000000"]);
    assert!(walk.contains("PDPT[1] PD[1]\n") && walk.contains("PD[1] maps a page of 2 MiB, rwx"), "{walk}");
    assert!(walk.contains("the address has more than 32 bits"), "{walk}");
    let explain = told(&["explain"], "paged32", &[]);
    assert!(explain.contains("1024 of 4 MiB") && explain.contains("levels       2"), "{explain}");
}
