//! Page tables that a guest has built: a walk, its trace and a transfer agree, whatever the entries say.

use shared_abi::{Gpa, Gva};
use vmm::Backing;
use vmm::guest_space::{Access, GuestBuffer, GuestSpace};
use vmm::memory::GuestMemory;
use vmm::page_walk::{PageTables, Paging, trace, walk};

use super::Words;

/// Where words of the input are put; entries that point to these pages lead to each other.
const TABLES: u64 = 0x1_0000;

pub(super) fn run(input: &[u8]) {
    let mut words = Words(input);
    let memory = GuestMemory::allocate("2M".parse().expect("a size"), Backing::default()).expect("2 MiB");
    let (cr3, gva, size) = (words.word(), Gva(words.word()), words.word());
    for _ in 0..256 {
        if words.is_empty() {
            break;
        }
        let (page, index) = (u64::from(words.byte() % 8), u64::from(words.byte()));
        let entry = words.word() | u64::from(words.byte());
        let _ = memory.write(Gpa(TABLES + (page << 12) + index % 512 * 8), &entry.to_le_bytes());
    }
    let kinds = [
        Paging::FourLevels,
        Paging::Pae,
        Paging::Bits32 { large_pages: true },
        Paging::Bits32 { large_pages: false },
    ];
    let tables = |paging| [cr3, TABLES].map(|cr3| PageTables { cr3, paging });
    for tables in kinds.into_iter().flat_map(tables) {
        // Outside 64-bit mode an address has 32 bits; with more there is nothing to walk.
        let gva = if tables.paging == Paging::FourLevels { gva } else { Gva(gva.0 & 0xFFFF_FFFF) };
        let read = |gpa: Gpa| memory.read_u64(gpa).ok();
        let (walked, traced) = (walk(tables, gva, read), trace(tables, gva, read));
        assert_eq!(walked, traced.end, "a walk and its trace differ");
        assert!(traced.steps.len() <= 4 && !traced.reason().is_empty());
        let space = GuestSpace::with_page_tables(&memory, tables);
        for access in [Access::Read, Access::Write] {
            // A size beyond what a call may transfer is refused before it comes here.
            let buffer = GuestBuffer { gva, size: size % (1 << 24) };
            let mut total = 0;
            for piece in space.pieces(buffer, access) {
                let Ok(piece) = piece else { break };
                assert!(memory.check(piece.gpa, piece.size).is_ok(), "{piece:?} is not RAM");
                total += piece.size;
            }
            assert!(total <= buffer.size, "more than was asked for");
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    // CR3, address, size; then four levels, each table's entry 0 to the next, and pages of 2 MiB and 4 KiB.
    let entry = |page: u8, index: u8, target: u8| vec![page, index, target, 7];
    let chain: Vec<u8> = (0..3).flat_map(|page| entry(page, 0, 0x91 + page)).collect();
    vec![
        [vec![0x90, 0, 0x82], chain.clone(), entry(3, 0, 0x90), entry(3, 1, 0xA0)].concat(),
        [vec![0x90, 0x81, 0x88], chain, vec![2, 1, 0x80, 0x87], entry(3, 1, 0x7F)].concat(),
    ]
}
