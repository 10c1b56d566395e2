//! The first page tables, proven for every address by a walker that shares no code with their builder.
//!
//! The walker visits the whole address space, entry by entry, so each test of it is a proof for one machine; what it
//! finds is compared with the contract (`harness/contract.rs`) and with the VMM's own map.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;
use vmm::boot::guest_map::{GuestMap, PlanError};
use vmm::boot::page_tables;
use vmm::boot::region::Rights;
use vmm::{Contract, Error, KernelSource, MemorySize, PageSize, Vm, VmConfig};

use crate::harness::contract::{GIB, MIB, Machine, machines, segment};
use crate::harness::elf::{self, Elf};
use crate::harness::walker::{Fault, LOWER_HALF, Span, UPPER_HALF, Walker};

/// The physical address bits that the contract asks of a CPU; all above are reserved.
const PHYSICAL_BITS: u32 = 39;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_address_is_mapped_as_the_contract_says(machine in machines()) {
        if let Some(tables) = Tables::build(&machine)? {
            machine.check(&tables.walker(), &tables.map)?;
        }
    }

    #[test]
    fn every_table_is_emitted_once_and_used(machine in machines()) {
        let Some(tables) = Tables::build(&machine)? else { return Ok(()) };
        let region = tables.map.page_tables().expect("long mode has tables");

        // `build` has refused to take an entry twice.
        let emitted: HashSet<u64> = tables.by_gpa.keys().copied().collect();
        prop_assert_eq!(emitted.len() as u64, page_tables::count(&tables.map));
        prop_assert_eq!(region.size(), emitted.len() as u64 * PAGE_SIZE);
        prop_assert!(emitted.iter().all(|gpa| region.start.0 <= *gpa && gpa + PAGE_SIZE <= region.end.0));
        prop_assert_eq!(tables.reached(), emitted);
    }
}

#[test]
fn ram_on_both_sides_of_the_hole_is_mapped_in_small_pages() {
    let machine = Machine::with_kernel(3 * GIB + 20 * 1024, PageSize::Size4K);
    let tables = Tables::of(&machine);
    machine.check(&tables.walker(), &tables.map).expect("the contract holds");
}

#[test]
fn the_number_of_tables_is_what_the_manual_says() {
    for (memory, page_size, tables) in [
        // One of each level; the lowest 2 MiB always have a page table.
        (16 * MIB, PageSize::Size2M, 4),
        (16 * MIB, PageSize::Size4K, 3 + 8),
        // One page directory for each GiB in 2 MiB pages, and one page table for each 2 MiB in 4 KiB pages.
        (64 * GIB, PageSize::Size2M, 2 + 64 + 1),
        (64 * GIB, PageSize::Size4K, 2 + 64 + 64 * 512),
        // A page directory for the first GiB alone.
        (64 * GIB, PageSize::Size1G, 2 + 1 + 1),
        // 4 KiB behind the last GiB: a page directory and a page table more.
        (256 * GIB - PAGE_SIZE, PageSize::Size1G, 2 + 2 + 2),
    ] {
        let machine = Machine::with_kernel(memory, page_size);
        let map = machine.plan().expect("it fits");
        assert_eq!(page_tables::count(&map), tables, "{memory:#x} bytes in pages of {page_size}");
    }
}

#[test]
fn an_address_that_is_not_canonical_reaches_no_table() {
    let tables = Tables::of(&Machine::with_kernel(16 * MIB, PageSize::Size2M));
    for gva in [1 << 47, (1 << 47) + 0x10_0000, 0xFFFF_7FFF_FFFF_FFFF, 1 << 63, 0x8000_0000_0010_0000] {
        assert_eq!(tables.walker().walk(gva), Err(Fault::NonCanonical), "{gva:#x}");
    }
}

#[test]
fn a_real_machine_starts_with_these_tables_and_keeps_them() {
    // mov al, 0; out 0xF4, al
    let image = Elf::new(0x10_0010)
        .with(elf::Segment::new(0x10_0010, elf::RX, &[0xB0, 0x00, 0xE6, 0xF4]))
        .with(elf::Segment::new(0x10_1000, elf::R, b"constants"))
        .with(elf::Segment::new(0x10_1800, elf::RW, b"data").in_memory(0x3000));
    let segments = vec![
        segment(0, 0x10_0010, 4, Rights::ReadExecute),
        segment(1, 0x10_1000, 9, Rights::Read),
        segment(2, 0x10_1800, 0x3000, Rights::ReadWrite),
    ];
    for (memory, page_size) in [
        (16 * MIB, PageSize::Size2M),
        (6 * MIB, PageSize::Size4K),
        (5 * GIB, PageSize::Size2M),
        (5 * GIB, PageSize::Size1G),
    ] {
        let mut config = VmConfig::new(KernelSource::Bytes(image.to_bytes().into()));
        config.memory = MemorySize::new(memory).expect("a size of RAM");
        config.page_size = page_size;
        config.contract = Contract::None;
        let mut vm = match Vm::build(config) {
            // Not every CPU has pages of 1 GiB.
            Err(Error::NoGigabytePages) => continue,
            built => built.expect("the image is right"),
        };
        let machine = Machine { memory, page_size, segments: segments.clone() };

        check_real_machine(&machine, &vm);
        vm.run().expect("the guest exits");
        check_real_machine(&machine, &vm);
    }
}

fn check_real_machine(machine: &Machine, vm: &Vm) {
    let walker = Walker {
        read: |gpa| vm.memory().read_u64(Gpa(gpa)).ok(),
        cr3: vm.map().page_tables().expect("long mode has tables").start.0,
        physical_bits: PHYSICAL_BITS,
    };
    machine.check(&walker, vm.map()).expect("the contract holds");
}

/// The outcome of a check: nothing, or what was found to be false.
type Proof = Result<(), TestCaseError>;

impl Machine {
    fn plan(&self) -> Result<GuestMap, PlanError> {
        let memory = MemorySize::new(self.memory).expect("a size of RAM");
        GuestMap::plan(memory, &self.segments, self.page_size)
    }

    /// Proves all addresses: what `walker` finds is what the contract says, and what `map` says.
    fn check<R: Fn(u64) -> Option<u64>>(&self, walker: &Walker<R>, map: &GuestMap) -> Proof {
        let mut checked_end = 0;
        for span in walker.spans(LOWER_HALF) {
            prop_assert_eq!(span.start, checked_end, "spans leave no gap");
            checked_end = span.last + 1;
            self.check_span(&span)?;
            let regions = map.regions().iter();
            for region in regions.filter(|region| region.start.0 <= span.last && span.start < region.end.0) {
                prop_assert_eq!(region.rights, rights(&span), "{:x?} and {:x?}", span, region);
            }
        }
        prop_assert_eq!(checked_end, LOWER_HALF.1 + 1);
        for span in walker.spans(UPPER_HALF) {
            prop_assert_eq!(rights(&span), Rights::None, "{:x?} lies in the upper half", span);
        }
        Ok(())
    }

    fn check_span(&self, span: &Span) -> Proof {
        let size = span.last - span.start + 1;
        match span.outcome {
            Ok(page) => {
                prop_assert_eq!(page.gpa, span.start, "identity");
                prop_assert!(!page.user, "{:x?} is open to ring 3", span);
                prop_assert_eq!(page.pat_entry, 0, "{:x?} is not write-back", span);
                self.check_page_size(span.start, size)?;
            }
            Err(Fault::NotPresent(_)) => {}
            Err(fault) => prop_assert!(false, "{:#x}: {:x?}", span.start, fault),
        }
        if size == PAGE_SIZE {
            prop_assert_eq!(rights(span), self.rights_of_page(span.start), "{:x?}", span);
        } else if span.outcome.is_ok() {
            prop_assert!(
                self.is_free(span.start, span.start + size),
                "{:x?} covers more than free RAM",
                span
            );
            prop_assert_eq!(rights(span), Rights::ReadWrite, "{:x?}", span);
        } else {
            let has_ram = self.ram().iter().any(|ram| ram.0 <= span.last && span.start < ram.1);
            prop_assert!(!has_ram, "{:x?} leaves RAM unmapped", span);
        }
        Ok(())
    }

    /// No page is larger than asked for, and none smaller than it must be.
    fn check_page_size(&self, start: u64, size: u64) -> Proof {
        let largest = self.page_size.bytes();
        prop_assert!(size <= largest, "{:#x} is in a page of {:#x} bytes", start, size);
        for larger in [2 * MIB, GIB].into_iter().filter(|larger| size < *larger && *larger <= largest) {
            let block = start & !(larger - 1);
            let free = self.is_free(block, block + larger);
            prop_assert!(!free, "{:#x} could be in a page of {:#x} bytes", start, larger);
        }
        Ok(())
    }
}

fn rights(span: &Span) -> Rights {
    span.outcome.map_or(Rights::None, |page| Rights::new(page.writable, page.executable))
}

/// A page table.
type Table = [u64; 512];

/// Page tables as the builder emits them.
struct Tables {
    map: GuestMap,
    by_gpa: HashMap<u64, Table>,
}

impl Tables {
    /// Builds the tables of `machine`; `None` when there truly is no room for them.
    fn build(machine: &Machine) -> Result<Option<Self>, TestCaseError> {
        let map = match machine.plan() {
            Ok(map) => map,
            Err(PlanError::Host(Error::NoRoomForPageTables { tables, .. })) => {
                let room = machine.has_free_low_run(tables * PAGE_SIZE);
                prop_assert!(!room, "there is room for {} tables", tables);
                return Ok(None);
            }
            Err(error) => return Err(TestCaseError::fail(format!("{error:?}"))),
        };
        let mut by_gpa: HashMap<u64, Table> = HashMap::new();
        let mut is_twice = false;
        page_tables::write(&map, &mut |gpa, entries| {
            // They lie in one table, or in whole ones.
            for (table, entries) in (gpa.0..).step_by(PAGE_SIZE as usize).zip(entries.chunks(512)) {
                let first = (table % PAGE_SIZE / 8) as usize;
                let table = by_gpa.entry(table & !(PAGE_SIZE - 1)).or_insert_with(|| [0; 512]);
                let places = &mut table[first..first + entries.len()];
                is_twice |= places.iter().any(|entry| *entry != 0);
                places.copy_from_slice(entries);
            }
        });
        prop_assert!(!is_twice, "no two entries lie in one place");
        Ok(Some(Self { map, by_gpa }))
    }

    /// The tables of a machine that has room for them.
    fn of(machine: &Machine) -> Self {
        let built = Self::build(machine).expect("a machine that can be planned");
        built.expect("there is room for the tables")
    }

    fn read(&self, gpa: u64) -> Option<u64> {
        let table = self.by_gpa.get(&(gpa & !(PAGE_SIZE - 1)))?;
        table.get((gpa % PAGE_SIZE / 8) as usize).copied()
    }

    fn walker(&self) -> Walker<impl Fn(u64) -> Option<u64>> {
        Walker {
            read: |gpa| self.read(gpa),
            cr3: self.map.page_tables().expect("long mode has tables").start.0,
            physical_bits: PHYSICAL_BITS,
        }
    }

    /// The tables that a walk of all addresses comes by.
    fn reached(&self) -> HashSet<u64> {
        let reached = RefCell::new(HashSet::new());
        let walker = Walker {
            read: |gpa| {
                reached.borrow_mut().insert(gpa & !(PAGE_SIZE - 1));
                self.read(gpa)
            },
            cr3: self.map.page_tables().expect("long mode has tables").start.0,
            physical_bits: PHYSICAL_BITS,
        };
        assert!(walker.spans(LOWER_HALF).count() > 0);
        reached.into_inner()
    }
}
