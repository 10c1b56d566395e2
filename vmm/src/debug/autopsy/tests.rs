//! Each cause and each step of delivery on made-up machines, and random ones.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use shared_abi::{Gpa, Gva};

use super::{Chain, End, Finding, Scene, examine};
use crate::config::Backing;
use crate::debug::CpuState;
use crate::debug::exception::vector;
use crate::memory::GuestMemory;

/// Where things lie. Page 0 is not mapped, and only the code can be executed.
const PML4: u64 = 0x1000;
const PT: u64 = 0x4000;
const IDT: u64 = 0x5000;
const GDT: u64 = 0x6000;
const TSS: u64 = 0x7000;
const CODE: u64 = 0x1_0000;
const STACK_END: u64 = 0x2_0000;
const MEMORY: u64 = 2 << 20;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;

/// A CPU in 64-bit mode about to execute, and its memory.
struct Body {
    state: CpuState,
    memory: GuestMemory,
}

impl Body {
    /// About to execute `code`, with everything in place but an IDT.
    fn with(code: &[u8]) -> Self {
        let memory = GuestMemory::allocate("2M".parse().expect("a size"), Backing::default()).expect("RAM");
        let mut state = CpuState::default();
        state.general.rip = CODE;
        state.general.rsp = STACK_END;
        state.general.rflags = 2;
        state.special.cr0 = 0x8000_0000 | 1 << 16 | 1;
        state.special.cr3 = PML4;
        state.special.cr4 = 1 << 5 | 1 << 9;
        state.special.efer = 1 << 8 | 1 << 10 | 1 << 11;
        state.special.cs.l = 1;
        state.special.gdt.base = GDT;
        state.special.gdt.limit = 0x17;
        state.special.idt.base = IDT;
        state.special.tr.base = TSS;
        state.special.tr.limit = 0x67;
        let body = Self { state, memory };
        body.write(PML4, 0x2000 | PRESENT | WRITABLE | USER);
        body.write(0x2000, 0x3000 | PRESENT | WRITABLE | USER);
        body.write(0x3000, PT | PRESENT | WRITABLE | USER);
        for page in (0x1000..MEMORY).step_by(0x1000) {
            body.map(page, if page == CODE { 0 } else { NO_EXECUTE } | PRESENT | WRITABLE);
        }
        // 64-bit code, and data.
        body.write(GDT + 8, 0x00AF_9A00_0000_FFFF);
        body.write(GDT + 16, 0x00CF_9200_0000_FFFF);
        body.memory.write(Gpa(CODE), code).expect("RAM");
        body
    }

    fn write(&self, gpa: u64, word: u64) {
        self.memory.write(Gpa(gpa), &word.to_le_bytes()).expect("RAM");
    }

    /// Maps a page to itself, with these flags.
    fn map(&self, page: u64, flags: u64) {
        self.write(PT + page / 0x1000 * 8, page | flags);
    }

    /// A gate for `vector` that leads to `handler` in segment 8.
    fn gate(&mut self, vector: u8, handler: u64, ist: u64) -> u64 {
        self.state.special.idt.limit = 0xFFF;
        let at = IDT + u64::from(vector) * 16;
        self.write(
            at,
            handler & 0xFFFF | 8 << 16 | ist << 32 | 0x8E00 << 32 | (handler >> 16 & 0xFFFF) << 48,
        );
        self.write(at + 8, handler >> 32);
        at
    }

    fn examine(&self) -> Finding {
        examine(&Scene { state: &self.state, memory: &self.memory })
    }

    #[track_caller]
    fn chain(&self) -> Chain {
        match self.examine() {
            Finding::Chain(chain) => chain,
            other => panic!("there is an exception, but: {other:?}"),
        }
    }

    /// Vector and error code of the first exception, and why.
    #[track_caller]
    fn first(&self) -> (u8, Option<u32>, String) {
        let link = self.chain().first().clone();
        (link.exception.vector, link.exception.error, link.why)
    }
}

/// `mov byte ptr [rax], 1`
const WRITE: [u8; 3] = [0xC6, 0x00, 0x01];
const UD2: [u8; 2] = [0x0F, 0x0B];

#[test]
fn without_an_idt_every_handler_fails() {
    let chain = Body::with(&WRITE).chain();
    assert_eq!(
        chain.to_string(),
        "#PF: write to 0x0 (PT[0] not present) -> IDT limit 0x0, no gate for vector 14 -> #DF -> \
         IDT limit 0x0, no gate for vector 8 -> shutdown"
    );
    assert_eq!((chain.cr2(), chain.end), (Some(Gva(0)), End::Shutdown));
}

#[test]
fn a_benign_exception_is_followed_by_the_one_its_delivery_raises() {
    let vectors: Vec<_> = Body::with(&UD2).chain().links.iter().map(|link| link.exception.vector).collect();
    assert_eq!(vectors, [vector::UD, vector::GP, vector::DF]);
}

#[test]
fn every_step_of_a_delivery_can_fail() {
    let handler = CODE + 0x100;
    type Spoil = fn(&mut Body, u64);
    let steps: [(&str, Spoil); 14] = [
        ("reading gate 14 of the IDT at 0x50e0: #PF: read of 0x50e0 (PT[5] not present)", |body, _| {
            body.map(IDT, 0)
        }),
        ("is empty", |body, gate| {
            body.write(gate, 0);
            body.write(gate + 8, 0);
        }),
        ("is no interrupt or trap gate", |body, gate| body.write(gate, 8 << 16 | 0x8C00 << 32)),
        ("is not present", |body, gate| body.write(gate, 8 << 16 | 0x0E00 << 32)),
        ("the gate's code selector is null", |body, gate| body.write(gate, 0x8E00 << 32)),
        ("selector 0x18 is outside the GDT with limit 0x17", |body, gate| {
            body.write(gate, 0x18 << 16 | 0x8E00 << 32)
        }),
        ("0x10 names no code segment", |body, gate| body.write(gate, 0x10 << 16 | 0x8E00 << 32)),
        ("0x8 names a segment that is not 64-bit", |body, _| body.write(GDT + 8, 0x00CF_9A00_0000_FFFF)),
        ("code segment 0x8 is not present", |body, _| body.write(GDT + 8, 0x00AF_1A00_0000_FFFF)),
        ("reading the GDT at 0x6008: #PF", |body, _| body.map(GDT, 0)),
        ("the handler 0x800000000000 is not canonical", |body, _| {
            body.gate(14, 1 << 47, 0);
        }),
        ("the stack IST1 of the TSS is beyond the limit 0x20", |body, _| {
            body.gate(14, 0x1_0100, 1);
            body.state.special.tr.limit = 0x20;
        }),
        ("the stack IST2 of the TSS is 0x800000000000, which is not canonical", |body, _| {
            body.gate(14, 0x1_0100, 2);
            body.write(TSS + 44, 1 << 47);
        }),
        (
            "pushing the frame to the stack at 0x1ffd0: #PF: write to 0x1ffd0 (PT[31] not present)",
            |body, _| {
                body.map(STACK_END - 0x1000, 0);
            },
        ),
    ];
    for (why, spoil) in steps {
        let mut body = Body::with(&WRITE);
        let gate = body.gate(14, handler, 0);
        assert_eq!(body.chain().end, End::Handled(Gva(handler)), "before it is spoiled");
        spoil(&mut body, gate);
        let chain = body.chain();
        let failed = chain.first().undelivered.as_ref().map(|raised| raised.why.clone()).unwrap_or_default();
        assert!(failed.contains(why), "{failed:?} is not {why:?}");
        assert_eq!(chain.end, End::Shutdown, "{chain}");
    }
}

#[test]
fn a_dead_stack_is_survived_by_a_handler_with_a_stack_of_its_own() {
    let mut body = Body::with(&[0x50]); // push rax
    body.map(STACK_END - 0x1000, 0);
    body.gate(14, CODE + 0x100, 0);
    body.gate(8, CODE + 0x200, 1);
    body.write(TSS + 36, STACK_END - 0x2000);
    let chain = body.chain();
    assert_eq!(chain.end, End::Handled(Gva(CODE + 0x200)));
    assert_eq!(chain.links.len(), 2);
    assert_eq!(chain.cr2(), Some(Gva(STACK_END - 0x30)), "the last page fault is that of the delivery");

    // A bad pointer in the TSS loses this way out, too.
    body.write(TSS + 36, 0xDEAD_0000);
    let chain = body.chain();
    assert!(chain.to_string().contains("the stack IST1 of the TSS at 0xdeacffd0: #PF: write to"), "{chain}");
    assert_eq!(chain.end, End::Shutdown);
}

#[test]
fn every_cause_is_found() {
    type Spoil = fn(&mut Body);
    /// Code, what is spoiled, and the vector, error code and reason that come of it.
    type Case<'a> = (&'a [u8], Spoil, u8, Option<u32>, &'a str);
    let nothing: Spoil = |_| {};
    let cases: &[Case<'_>] = &[
        (
            &WRITE,
            |body| {
                body.state.general.rax = 0x9000;
                body.map(0x9000, PRESENT);
            },
            vector::PF,
            Some(3),
            "PT[9] maps the page as read-only",
        ),
        (
            &WRITE,
            |body| body.state.general.rax = 1 << 47,
            vector::GP,
            Some(0),
            "0x800000000000 is not canonical",
        ),
        (
            &[0xC6, 0x04, 0x24, 1],
            |body| body.state.general.rsp = 1 << 47,
            vector::SS,
            Some(0),
            "is not canonical",
        ),
        (&[0x50], |body| body.state.general.rsp = 0x1000, vector::PF, Some(2), "PT[0] not present"),
        (&UD2, nothing, vector::UD, None, "on purpose"),
        (&[0x06], nothing, vector::UD, None, "the bytes 06"),
        (&[0x66; 15], nothing, vector::GP, Some(0), "longer than 15 bytes"),
        (&[0x48, 0xF7, 0xF1], nothing, vector::DE, None, "the divisor is 0"),
        (
            &[0x48, 0xF7, 0xF1],
            |body| {
                body.state.general.rcx = 1;
                body.state.general.rdx = 1;
            },
            vector::DE,
            None,
            "does not fit into 64 bits",
        ),
        (
            &[0x48, 0xF7, 0xF9],
            |body| {
                body.state.general.rcx = u64::MAX;
                body.state.general.rax = 1 << 63;
                body.state.general.rdx = u64::MAX;
            },
            vector::DE,
            None,
            "does not fit",
        ),
        (&UD2, |body| body.state.general.rip = STACK_END, vector::PF, Some(0x11), "not executable"),
        (
            &UD2,
            |body| body.state.general.rip = 1 << 47,
            vector::GP,
            Some(0),
            "RIP 0x800000000000 is not canonical",
        ),
        (
            &UD2,
            |body| {
                body.state.general.rip = CODE + 0xFFF;
                body.memory.write(Gpa(CODE + 0xFFF), &[0xC6]).expect("RAM");
            },
            vector::PF,
            Some(0x11),
            "not executable",
        ),
        (&UD2, |body| body.state.special.cr3 = 0x8000, vector::PF, Some(0x10), "PML4[0] not present"),
        (
            &UD2,
            |body| body.state.special.cr3 = 0x7000_0000,
            vector::PF,
            Some(0x10),
            "PML4[0] lies outside RAM",
        ),
        (
            &WRITE,
            |body| {
                body.state.special.efer &= !(1 << 11);
                body.state.general.rax = 0x9000;
            },
            vector::PF,
            Some(0xB),
            "EFER.NXE is 0",
        ),
        (&[0xC3], |body| body.write(STACK_END, 1 << 47), vector::GP, Some(0), "leads to 0x800000000000"),
        (
            &[0xFF, 0xE0],
            |body| body.state.general.rax = 1 << 63,
            vector::GP,
            Some(0),
            "leads to 0x8000000000000000",
        ),
        (&[0x48, 0xCF], nothing, vector::GP, Some(0), "the new CS is null"),
        (
            &[0x48, 0xCF],
            |body| body.write(STACK_END + 8, 0x28),
            vector::GP,
            Some(0x28),
            "selector 0x28 is outside the GDT",
        ),
        (
            &[0x48, 0xCF],
            |body| body.write(STACK_END + 8, 0x10),
            vector::GP,
            Some(0x10),
            "CS 0x10 names no code segment",
        ),
        (
            &[0x48, 0xCF],
            |body| {
                body.write(STACK_END + 8, 8);
                body.write(STACK_END, 1 << 47);
            },
            vector::GP,
            Some(0),
            "return to 0x800000000000",
        ),
        (
            &[0x48, 0xCF],
            |body| {
                body.write(STACK_END + 8, 8);
                body.write(STACK_END + 32, 8);
            },
            vector::GP,
            Some(8),
            "SS 0x8 names no writable data segment",
        ),
        (&[0x0F, 0x22, 0xD8], |body| body.state.general.rax = 1 << 60, vector::GP, Some(0), "CR3 cannot be"),
        (&[0x0F, 0x22, 0xC0], |body| body.state.general.rax = 1, vector::GP, Some(0), "PG cannot be cleared"),
        (&[0x0F, 0x22, 0xE0], nothing, vector::GP, Some(0), "PAE cannot be cleared"),
        (&[0x0F, 0x00, 0xD8], nothing, vector::GP, Some(0), "the TSS selector is null"),
        (
            &[0x0F, 0x00, 0xD8],
            |body| body.state.general.rax = 0x10,
            vector::GP,
            Some(0x10),
            "names no available TSS",
        ),
        (
            &[0x0F, 0x01, 0x18],
            |body| {
                body.state.general.rax = 0x9000;
                body.write(0x9002, 1 << 47);
            },
            vector::GP,
            Some(0),
            "the base 0x800000000000",
        ),
        (&[0x8E, 0xD8], |body| body.state.general.rax = 0x40, vector::GP, Some(0x40), "outside the GDT"),
        (&[0x8E, 0xD0], |body| body.state.general.rax = 8, vector::GP, Some(8), "no writable data segment"),
        (
            &[0x0F, 0x28, 0x00],
            |body| body.state.general.rax = 0x9008,
            vector::GP,
            Some(0),
            "no multiple of 16",
        ),
        (&[0x0F, 0x28, 0xC1], |body| body.state.special.cr4 &= !(1 << 9), vector::UD, None, "SSE is off"),
        (&[0x0F, 0x28, 0xC1], |body| body.state.special.cr0 |= 1 << 3, vector::NM, None, "CR0.TS is set"),
        (&[0xCC], nothing, vector::BP, None, "asks for it"),
        (&[0xCD, 0x80], nothing, 0x80, None, "asks for it"),
        (
            &[0xF4],
            |body| {
                body.state.special.ss.dpl = 3;
                body.map(CODE, PRESENT | USER);
            },
            vector::GP,
            Some(0),
            "is for ring 0, and this is ring 3",
        ),
        (&UD2, |body| body.state.special.ss.dpl = 3, vector::PF, Some(0x15), "for the kernel only"),
        (&[0x0F, 0x05], nothing, vector::UD, None, "EFER.SCE is 0"),
        (&[0x0F, 0x32], |body| body.state.general.rcx = 0x1234, vector::GP, Some(0), "MSR 0x1234"),
        (&[0x90], |body| body.state.general.rflags |= 1 << 8, vector::DB, None, "RFLAGS.TF"),
    ];
    for (index, (code, spoil, vector, error, why)) in cases.iter().enumerate() {
        let mut body = Body::with(code);
        spoil(&mut body);
        let (found, code, reason) = body.first();
        assert_eq!((found, code), (*vector, *error), "case {index}: {reason}");
        assert!(reason.contains(why), "case {index}: {reason:?} is not {why:?}");
    }
}

#[test]
fn smep_and_smap_keep_the_kernel_from_user_pages() {
    let mut body = Body::with(&WRITE);
    body.map(CODE, PRESENT | USER);
    body.state.special.cr4 |= 1 << 20;
    assert!(body.first().2.contains("CR4.SMEP"));
    let mut body = Body::with(&WRITE);
    body.map(0x9000, PRESENT | WRITABLE | USER | NO_EXECUTE);
    body.state.general.rax = 0x9000;
    body.state.special.cr4 |= 1 << 21;
    assert!(body.first().2.contains("CR4.SMAP"));
    // `stac` allows it.
    body.state.general.rflags |= 1 << 18;
    assert!(matches!(body.examine(), Finding::NoException(_)));
}

#[test]
fn an_instruction_that_can_be_executed_raises_nothing() {
    let mut body = Body::with(&WRITE);
    body.state.general.rax = 0x9000;
    let Finding::NoException(why) = body.examine() else { panic!("nothing is wrong") };
    assert!(why.contains("`mov byte ptr [rax], 1`"), "{why}");
}

#[test]
fn modes_that_are_not_followed_are_named() {
    let mut body = Body::with(&UD2);
    body.state.special.cr4 |= 1 << 12;
    assert_eq!(body.examine(), Finding::NotFollowed("the CPU used page tables of five levels".to_owned()));
}

/// Longer than any examination takes here, by far.
const LIMIT: Duration = Duration::from_secs(2);

/// Numbers as they come in page tables, registers and descriptors: few bits, or all.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..MEMORY,
        (0..MEMORY).prop_map(|word| word & !0xFFF | 3),
        Just(0),
        Just(u64::MAX),
        Just(1 << 47),
        Just(0x00AF_9A00_0000_FFFF),
    ]
}

proptest! {
    #[test]
    fn no_registers_and_no_memory_are_too_much(
        words in proptest::collection::vec(word(), 64),
        registers in proptest::collection::vec(word(), 24),
        code in proptest::collection::vec(any::<u8>(), 1..32),
        is_sane in any::<bool>(),
    ) {
        let mut body = Body::with(&code);
        if !is_sane {
            for (index, word) in words.iter().enumerate() {
                body.write(PML4 + index as u64 * 0x1C8, *word);
            }
        }
        scramble(&mut body.state, &registers, is_sane);
        let start = Instant::now();
        let finding = body.examine();
        prop_assert!(start.elapsed() < LIMIT);
        if let Finding::Chain(chain) = finding {
            prop_assert!(chain.links.len() <= 4, "{chain}");
            prop_assert!(chain.to_string().len() < 4096, "{chain}");
        }
    }
}

/// Puts chance into the registers; those that decide where code and tables are only if it need not be sane.
fn scramble(state: &mut CpuState, words: &[u64], is_sane: bool) {
    let mut words = words.iter().copied();
    let mut next = || words.next().unwrap_or_default();
    let general = &mut state.general;
    for register in [
        &mut general.rax,
        &mut general.rbx,
        &mut general.rcx,
        &mut general.rdx,
        &mut general.rsi,
        &mut general.rdi,
        &mut general.rsp,
        &mut general.rbp,
        &mut general.r8,
        &mut general.r15,
        &mut general.rflags,
    ] {
        *register = next();
    }
    state.special.idt.base = next();
    state.special.idt.limit = next() as u16;
    state.special.gdt.base = next();
    state.special.gdt.limit = next() as u16;
    state.special.tr.base = next();
    state.special.tr.limit = next() as u32;
    state.special.ss.dpl = next() as u8;
    if is_sane {
        return;
    }
    state.general.rip = next();
    state.special.cr0 ^= next() & 0xFFFF;
    state.special.cr3 = next();
    state.special.cr4 ^= next() & 0x1F_0000;
}
