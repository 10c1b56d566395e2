//! Hypercalls under random arguments: whatever a guest says, the answer is an answer.

use std::collections::HashMap;

use proptest::prelude::*;
use shared_abi::hypercall::{Hypercall, HypercallError, Registers};
use shared_abi::{Gpa, Gva, layout};
use vmm::guest_space::{Access, GuestBuffer, GuestSpace};
use vmm::memory::GuestMemory;
use vmm::{Backing, KernelSource, StopReason};

use crate::harness::{optimised_guest, probe};

/// A word as an attacker would choose it.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => prop::sample::select(vec![0, 1, 2, 7, 64, 255, 4095, 4096, 4097, 1 << 20, 16 << 20]),
        3 => prop::sample::select(vec![
            layout::BOOT_INFO.0,
            layout::ARGUMENTS.0,
            0x1_0000,
            layout::STACK_GUARD.0 - 8,
            layout::STACK_GUARD.0,
            layout::KERNEL.0,
            (16 << 20) - 1,
            16 << 20,
            layout::CONSOLE_MMIO.0,
            1 << 32,
            1 << 47,
            1 << 63,
            u64::MAX - 1,
            u64::MAX,
        ]),
        1 => any::<u64>(),
    ]
}

/// The numbers of the calls that end the run.
const ENDS: [u64; 2] = [1, 28];

/// Any call but those that end the run.
fn call() -> impl Strategy<Value = (u64, [u64; 6])> {
    (
        prop_oneof![8 => 0..40u64, 1 => any::<u64>()].prop_filter("goes on", |number| !ENDS.contains(number)),
        prop::array::uniform6(word()),
    )
}

#[test]
fn the_calls_that_end_the_run_are_left_out() {
    let ends = [Hypercall::Exit { code: 0 }, Hypercall::Exception { frame_gva: Gva(0) }];
    assert_eq!(ends.map(|call| call.number()), ENDS);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn decoding_any_registers_gives_a_call_or_an_error_and_a_call_survives(
        number in prop_oneof![0..40u64, any::<u64>()],
        arguments in prop::array::uniform6(prop_oneof![word(), any::<u64>()]),
    ) {
        match Hypercall::decode(&Registers::new(number, &arguments)) {
            Ok(call) => {
                prop_assert_eq!(call.number(), number);
                prop_assert_eq!(Hypercall::decode(&call.encode()), Ok(call));
            }
            Err(error) => prop_assert!(matches!(
                error,
                HypercallError::UnknownCall | HypercallError::BadArgument
            )),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_handler_answers_any_arguments(calls in prop::collection::vec(call(), 1..80)) {
        let words = calls.iter().flat_map(|(number, arguments)| std::iter::once(number).chain(arguments));
        let mut raw = probe("raw-calls");
        raw.config.arguments.extend(words.map(u64::to_string));
        raw.config.kernel = KernelSource::File(optimised_guest("probe"));
        let finished = raw.run();

        prop_assert_eq!(&finished.report.stop, &StopReason::Exited { code: 0 }, "{}", finished.console);
        let answers: Vec<u64> = finished.console.split("rax ").skip(1).filter_map(leading_number).collect();
        // A call may have printed "rax" itself, as a part of memory; never fewer than there were calls.
        prop_assert!(answers.len() >= calls.len(), "{} answers to {} calls", answers.len(), calls.len());
    }
}

fn leading_number(text: &str) -> Option<u64> {
    text.split('\n').next()?.parse().ok()
}

/// Page tables of a few pages in a small machine, and where each page leads.
#[derive(Clone, Debug)]
struct Pages {
    /// Page number to physical page and whether it is writable; the page number is that of a GVA below 2 MiB.
    mapped: HashMap<u64, (u64, bool)>,
}

const RAM_PAGES: u64 = 512;
const TABLES: u64 = 0x1F_0000;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_transfer_touches_just_what_the_page_tables_allow(
        start in 0..0x1_1000u64,
        size in 0..0x6000u64,
        write in any::<bool>(),
        mapped in prop::collection::hash_map(0..16u64, (16..RAM_PAGES + 4, any::<bool>()), 4..16),
        neighbours in any::<bool>(),
    ) {
        let mut pages = Pages { mapped };
        if neighbours {
            // Neighbours that lead to neighbours, so that pieces can join.
            pages.mapped.iter_mut().for_each(|(number, (page, _))| *page = number + 100);
        }
        let memory = machine(&pages);
        let space = GuestSpace::with_page_tables(&memory, TABLES);
        let access = if write { Access::Write } else { Access::Read };

        let expected: Option<Vec<u64>> = (start..start + size).map(|gva| pages.translate(gva, write)).collect();
        let pieces: Result<Vec<_>, _> = space.pieces(GuestBuffer { gva: Gva(start), size }, access).collect();

        match (expected, pieces) {
            (Some(addresses), Ok(pieces)) => {
                let given: Vec<u64> = pieces.iter().flat_map(|p| p.gpa.0..p.gpa.0 + p.size).collect();
                prop_assert_eq!(given, addresses);
                let joined = pieces.windows(2).all(|pair| pair[0].gpa.0 + pair[0].size != pair[1].gpa.0);
                prop_assert!(joined, "pieces that continue each other are one");
            }
            (None, Err(error)) => prop_assert_eq!(error, HypercallError::BadAddress),
            (expected, pieces) => prop_assert!(false, "expected {:?}, got {:?}", expected.map(|a| a.len()), pieces),
        }
    }
}

impl Pages {
    /// The model: what one byte's address leads to.
    fn translate(&self, gva: u64, write: bool) -> Option<u64> {
        let &(page, writable) = self.mapped.get(&(gva >> 12))?;
        (page < RAM_PAGES && (writable || !write)).then_some(page << 12 | gva & 0xFFF)
    }
}

/// 2 MiB of RAM whose tables, in its last pages, map `pages`.
fn machine(pages: &Pages) -> GuestMemory {
    let memory = GuestMemory::allocate("2M".parse().expect("a size"), Backing::default()).expect("memory");
    let put = |gpa: u64, entry: u64| memory.write(Gpa(gpa), &entry.to_le_bytes()).expect("RAM");
    for level in 0..3 {
        put(TABLES + level * 0x1000, (TABLES + (level + 1) * 0x1000) | 0b111);
    }
    for (number, (page, writable)) in &pages.mapped {
        put(TABLES + 0x3000 + number * 8, page << 12 | u64::from(*writable) << 1 | 1);
    }
    memory
}
