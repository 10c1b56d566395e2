//! Stacks of made-up guests: whole, broken and endless.

use proptest::prelude::*;
use shared_abi::Gpa;

use super::*;
use crate::config::Backing;

/// A guest without paging, whose code is `nop` everywhere below the stack.
fn guest(rbp: u64, words: &[(u64, u64)]) -> (CpuState, GuestMemory) {
    let memory = GuestMemory::allocate("2M".parse().expect("a size"), Backing::default()).expect("RAM");
    for (gpa, word) in words {
        memory.write(Gpa(*gpa), &word.to_le_bytes()).expect("RAM");
    }
    let mut state = CpuState::default();
    // 64-bit code, as if paging mapped all to itself.
    (state.special.cr0, state.special.efer, state.special.cs.l) = (1, 1 << 10, 1);
    state.general.rip = 0x1000;
    state.general.rbp = rbp;
    state.general.rsp = 0x8000;
    (state, memory)
}

fn unwind((state, memory): &(CpuState, GuestMemory)) -> Backtrace {
    Backtrace::unwind(state, memory, &Symbols::none("made up".to_owned()))
}

fn pcs(backtrace: &Backtrace) -> Vec<u64> {
    backtrace.frames.iter().map(|frame| frame.pc.0).collect()
}

#[test]
fn frames_lead_to_the_start_where_rbp_is_zero() {
    let guest = guest(0x8000, &[(0x8000, 0x9000), (0x8008, 0x1100), (0x9000, 0), (0x9008, 0x1200)]);
    let backtrace = unwind(&guest);
    assert_eq!((pcs(&backtrace), backtrace.end), (vec![0x1000, 0x1100, 0x1200], None));
}

#[test]
fn every_broken_list_ends_with_its_reason() {
    for (rbp, words, reason) in [
        (0x8004, &[][..], "RBP 0x8004 is no multiple of 8"),
        (1 << 47, &[], "RBP 0x800000000000 is not canonical"),
        (0x7000_0000, &[], "no RAM is mapped at RBP 0x70000000"),
        (u64::MAX - 7, &[], "no RAM is mapped"),
        (0x8000, &[(0x8008, 0x7000_0000)], "the return address 0x70000000 at 0x8008 is no code"),
        (0x8000, &[(0x8000, 0x8000), (0x8008, 0x1100)], "the frame at 0x8000 leads back to 0x8000"),
        (0x8000, &[(0x8000, 1 << 40), (0x8008, 0x1100)], "no RAM is mapped at RBP 0x10000000000"),
    ] {
        let end = unwind(&guest(rbp, words)).end.unwrap_or_default();
        assert!(end.contains(reason), "{end:?} is not {reason:?}");
    }
}

#[test]
fn recursion_is_folded() {
    let mut words: Vec<_> =
        (0..1000).flat_map(|n| [(0x8000 + n * 16, 0x8010 + n * 16), (0x8008 + n * 16, 0x1100)]).collect();
    words.extend([(0x8000 + 16000, 0), (0x8008 + 16000, 0x1200)]);
    let backtrace = unwind(&guest(0x8000, &words));
    assert_eq!(pcs(&backtrace), [0x1000, 0x1100, 0x1200]);
    assert_eq!(backtrace.frames[1].repeated, 999);
    assert!(backtrace.to_string().contains("… 999 more calls of the same"), "{backtrace}");
    assert_eq!(thousands(1_234_567), "1,234,567");
}

#[test]
fn mutual_recursion_is_folded_too() {
    let pc = |n: u64| 0x1100 + n % 2 * 0x100;
    let mut words: Vec<_> =
        (0..100).flat_map(|n| [(0x8000 + n * 16, 0x8010 + n * 16), (0x8008 + n * 16, pc(n))]).collect();
    words.push((0x8000 + 1600, 0));
    let backtrace = unwind(&guest(0x8000, &words));
    assert_eq!(pcs(&backtrace), [0x1000, 0x1100, 0x1200]);
    assert_eq!(backtrace.frames[2].repeated, 98);
}

#[test]
fn a_prologue_and_a_call_to_nowhere_keep_their_caller() {
    // `call` at 0x10FB ends at 0x1100 and leads to 0x1000.
    let call = (0x10F8, u64::from_le_bytes([0x90, 0x90, 0x90, 0xE8, 0x00, 0xFF, 0xFF, 0xFF]));
    let frames = [(0x8000, 0x1100), (0x8008, 0x1100), (0x9000, 0), (0x9008, 0x1200), call];
    let push_rbp = guest(0x9000, &[&frames[..], &[(0x1000, 0x55)]].concat());
    assert_eq!(pcs(&unwind(&push_rbp)), [0x1000, 0x1100, 0x1200]);
    let mov_rbp_rsp = guest(0x9000, &[&frames[1..], &[(0x1000, 0xE5_8948)]].concat());
    assert_eq!(pcs(&unwind(&mov_rbp_rsp)), [0x1000, 0x1100, 0x1200]);

    let mut nowhere = guest(0x9000, &[frames[0], (0x9008, 0x1200), (0x10F8, 0xD0FF << 48)]);
    nowhere.0.general.rip = 0x7000_0000;
    assert_eq!(pcs(&unwind(&nowhere)), [0x7000_0000, 0x1100, 0x1200]);
}

proptest! {
    #[test]
    fn no_stack_is_too_much(words in proptest::collection::vec((0u64..0x1000, 0u64..0x9000), 0..200), rbp in 0u64..0x9000) {
        let words: Vec<_> = words.iter().map(|(at, word)| (0x1000 + at * 8, *word)).collect();
        let backtrace = unwind(&guest(rbp & !7, &words));
        prop_assert!(backtrace.frames.len() <= MAX_FRAMES);
        prop_assert!(backtrace.to_string().len() < 16 << 10);
    }
}
