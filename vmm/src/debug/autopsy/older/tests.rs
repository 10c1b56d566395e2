//! Causes and steps of delivery outside 64-bit code, on made-up machines.

use kvm_bindings::kvm_segment;
use proptest::prelude::*;
use shared_abi::{Gpa, Gva};

use crate::config::Backing;
use crate::debug::CpuState;
use crate::debug::autopsy::{Chain, End, Finding, Scene, examine};
use crate::memory::GuestMemory;

const IDT: u64 = 0x5000;
const GDT: u64 = 0x6000;
const TSS: u64 = 0x7000;
const PD: u64 = 0x8000;
const CODE: u64 = 0x1_0000;

/// A CPU about to execute, and its memory.
struct Body {
    state: CpuState,
    memory: GuestMemory,
}

fn segment(selector: u16, base: u64, limit: u32, type_: u8, db: u8) -> kvm_segment {
    kvm_segment { selector, base, limit, type_, db, present: 1, s: 1, ..kvm_segment::default() }
}

impl Body {
    fn new(code: &[u8], cr0: u64, rip: u64, cs: kvm_segment, data: kvm_segment) -> Self {
        let memory = GuestMemory::allocate("2M".parse().expect("a size"), Backing::default()).expect("RAM");
        memory.write(Gpa(CODE), code).expect("RAM");
        let mut state = CpuState::default();
        let special = &mut state.special;
        (special.cr0, special.cs) = (cr0, cs);
        (special.ds, special.es, special.ss, special.fs, special.gs) = (data, data, data, data, data);
        (special.gdt.base, special.gdt.limit, special.idt.base) = (GDT, 0x27, IDT);
        (special.tr.base, special.tr.limit) = (TSS, 0x67);
        (state.general.rip, state.general.rsp, state.general.rflags) = (rip, 0xFFF0, 2);
        Self { state, memory }
    }

    /// In real mode, at 1000:0000.
    fn real(code: &[u8]) -> Self {
        let code_segment = segment(0x1000, CODE, 0xFFFF, 11, 0);
        let mut body = Self::new(code, 0x10, 0, code_segment, segment(0, 0, 0xFFFF, 3, 0));
        body.state.special.idt.base = 0;
        body
    }

    /// In 32-bit protected mode, flat, without an IDT.
    fn protected(code: &[u8]) -> Self {
        let body = Self::new(code, 0x11, CODE, segment(8, 0, !0, 11, 1), segment(16, 0, !0, 3, 1));
        body.write(GDT + 0x08, 0x00CF_9B00_0000_FFFF); // code
        body.write(GDT + 0x10, 0x00CF_9300_0000_FFFF); // data
        body.write(GDT + 0x18, 0x0000_9A01_0000_00FF); // code, base 0x1_0000, limit 0xFF
        body.write(GDT + 0x20, 0x00CF_1300_0000_FFFF); // data that is not present
        body
    }

    fn write(&self, gpa: u64, word: u64) {
        self.memory.write(Gpa(gpa), &word.to_le_bytes()).expect("RAM");
    }

    /// A gate of 32 bits for `vector`.
    fn gate(&mut self, vector: u64, selector: u64, handler: u64, kind: u64) {
        self.state.special.idt.limit = 0x7FF;
        let word = handler & 0xFFFF | selector << 16 | kind << 40 | (handler >> 16) << 48;
        self.write(IDT + vector * 8, word);
    }

    #[track_caller]
    fn chain(&self) -> Chain {
        match examine(&Scene { state: &self.state, memory: &self.memory }) {
            Finding::Chain(chain) => chain,
            other => panic!("there is an exception, but: {other:?}"),
        }
    }

    /// The first exception with its reason: `#GP: … (0x40) why`.
    #[track_caller]
    fn first(&self) -> String {
        let link = self.chain().first().clone();
        let error = link.exception.error.map(|error| format!("({error:#x})")).unwrap_or_default();
        format!("{}{error} {}", crate::debug::exception::mnemonic(link.exception.vector), link.why)
    }
}

#[test]
fn without_vectors_real_mode_shuts_down() {
    let chain = Body::real(&[0x0F, 0x0B]).chain();
    assert_eq!(
        chain.to_string(),
        "#UD: invalid opcode (the instruction that is invalid on purpose) -> \
         IDTR limit 0x0, no entry for vector 6 in the vector table -> #GP -> \
         IDTR limit 0x0, no entry for vector 13 in the vector table -> #DF -> \
         IDTR limit 0x0, no entry for vector 8 in the vector table -> shutdown"
    );
}

#[test]
fn a_vector_of_real_mode_is_a_far_pointer() {
    let mut body = Body::real(&[0xCD, 0x21]);
    body.state.special.idt.limit = 0x3FF;
    body.write(0x21 * 4, 0x1234_5678);
    assert_eq!(body.chain().end, End::Handled(Gva(0x1_2340 + 0x5678)));
    body.state.general.rsp = 4;
    body.state.special.ss.limit = 0xFFF;
    assert!(body.chain().to_string().contains("SP 0xfffe leaves no room for IP, CS and FLAGS"));
}

#[test]
fn causes_of_real_mode_are_found() {
    for (code, cause) in [
        (&[0xA3, 0xFF, 0xFF][..], "#GP offset 0xffff (2 bytes) is beyond the limit 0xffff of DS"),
        (&[0x36, 0xA3, 0xFF, 0xFF], "#SS offset 0xffff (2 bytes) is beyond the limit 0xffff of SS"),
        (&[0xF7, 0xF3], "#DE the divisor is 0"),
        (&[0xFF, 0xFF], "#UD the bytes ff ff 00 00 are no instruction"),
    ] {
        assert_eq!(Body::real(code).first(), cause);
    }
}

#[test]
fn causes_of_protected_mode_are_found() {
    type Spoil = fn(&mut Body);
    let nothing: Spoil = |_| {};
    for (code, spoil, cause) in [
        (
            &[0x8E, 0xE0][..],
            (|body| body.state.general.rax = 0x40) as Spoil,
            "#GP(0x40) selector 0x40 is outside the GDT with limit 0x27",
        ),
        (
            &[0x8E, 0xE0],
            |body| body.state.general.rax = 0x20,
            "#NP(0x20) selector 0x20 names a segment that is not present",
        ),
        (&[0x8E, 0xD0], |body| body.state.general.rax = 0, "#GP(0x0) the new SS is null"),
        (&[0x2E, 0xC6, 0x05, 0, 0, 0, 0, 1], nothing, "#GP(0x0) CS holds a segment that cannot be written"),
        (
            &[0xA1, 0, 0x10, 0, 0],
            |body| body.state.special.ds.limit = 0xFFF,
            "#GP(0x0) offset 0x1000 (4 bytes) is beyond the limit 0xfff of DS",
        ),
        (
            &[0x50],
            |body| body.state.special.ss.limit = 0xFF,
            "#SS(0x0) offset 0xffec (4 bytes) is beyond the limit 0xff of SS",
        ),
        (&[0xEA, 0, 0, 1, 0, 0x10, 0], nothing, "#GP(0x10) CS 0x10 names no code segment"),
        (
            &[0xEA, 0, 0, 1, 0, 0x18, 0],
            nothing,
            "#GP(0x0) the target 0x10000 is beyond the limit 0xff of its segment",
        ),
        (
            &[0xF4],
            |body| body.state.special.ss.dpl = 3,
            "#GP(0x0) the instruction is for ring 0, and this is ring 3",
        ),
        (
            &[0x90],
            |body| body.state.special.cs.limit = 0xFFF,
            "#GP(0x0) IP 0x10000 is beyond the limit 0xfff of CS",
        ),
    ] {
        let mut body = Body::protected(code);
        spoil(&mut body);
        assert_eq!(body.first(), cause, "{code:02x?}");
    }
}

#[test]
fn every_step_of_a_delivery_in_protected_mode_can_fail() {
    let handler = CODE + 0x100;
    type Spoil = fn(&mut Body);
    let rows: [(Spoil, &str); 8] = [
        (|_| {}, "IDT limit 0x0, no gate for vector 6"),
        (|body| body.gate(6, 8, 0, 0), "gate 6 (#UD) of the IDT is no interrupt or trap gate"),
        (|body| body.gate(6, 8, 0, 0x85), "is a task gate, which is not followed here"),
        (|body| body.gate(6, 8, 0, 0x0E), "gate 6 (#UD) of the IDT is not present"),
        (|body| body.gate(6, 0x10, 0, 0x8E), "names no code segment"),
        (|body| body.gate(6, 0x48, 0, 0x8E), "selector 0x48 is outside the GDT"),
        (
            |body| body.gate(6, 0x18, 0x1000, 0x8E),
            "the handler 0x1000 is beyond the limit 0xff of its segment",
        ),
        (
            |body| {
                body.gate(6, 8, 0, 0x8E);
                body.state.general.rsp = 4;
                body.state.special.ss.limit = 0xFFF;
            },
            "the stack at 0x4 leaves no room for a frame of 12 bytes",
        ),
    ];
    for (spoil, step) in rows {
        let mut body = Body::protected(&[0x0F, 0x0B]);
        spoil(&mut body);
        let chain = body.chain();
        let why = chain.first().undelivered.as_ref().map(|raised| raised.why.clone()).unwrap_or_default();
        assert!(why.contains(step), "`{step}`: {chain}");
    }
    let mut body = Body::protected(&[0x0F, 0x0B]);
    body.gate(6, 8, handler, 0x8E);
    assert_eq!(body.chain().end, End::Handled(Gva(handler)));
    body.gate(6, 0x18, 0x20, 0x8E);
    assert_eq!(body.chain().end, End::Handled(Gva(CODE + 0x20)), "the segment's base counts");
}

#[test]
fn a_task_of_virtual_8086_mode_is_interrupted_to_the_stack_of_ring_0() {
    let mut body = Body::protected(&[0xCD, 0x21]);
    body.state.general.rflags = 0x2_0002;
    body.state.general.rip = 0;
    body.state.special.cs = segment(0x1000, CODE, 0xFFFF, 11, 0);
    body.gate(0x21, 8, CODE, 0xEE);
    body.write(TSS + 4, 0x10 << 32 | 0x9000);
    assert_eq!(body.chain().end, End::Handled(Gva(CODE)));
    body.gate(0x21, 8, CODE, 0x8E);
    assert!(body.chain().to_string().contains("is not for ring 3"), "{}", body.chain());
    body.state.special.tr.limit = 3;
    body.gate(0x21, 8, CODE, 0xEE);
    assert!(
        body.chain().to_string().contains("ring 0 is beyond the limit 0x3 of the TSS"),
        "{}",
        body.chain()
    );
}

#[test]
fn a_page_fault_of_two_levels_names_its_entry() {
    let mut body = Body::protected(&[0xA3, 0, 0, 0x80, 0]); // mov [0x80_0000], eax
    body.state.special.cr0 |= 1 << 31 | 1 << 16;
    (body.state.special.cr3, body.state.special.cr4) = (PD, 1 << 4);
    body.write(PD, 0x83);
    assert_eq!(body.first(), "#PF(0x2) PD[2] not present");
    body.write(PD + 8, 0x80_0081);
    assert_eq!(body.first(), "#PF(0x3) PD[2] maps the page as read-only");
}

proptest! {
    #[test]
    fn whatever_registers_and_memory_hold_an_autopsy_ends(
        words in proptest::collection::vec(any::<u64>(), 64),
        selectors in any::<[u16; 6]>(),
        registers in any::<[u64; 8]>(),
        bits in any::<[u8; 8]>(),
    ) {
        let mut body = Body::protected(&[]);
        for (index, word) in words.iter().enumerate() {
            body.write([IDT, GDT, TSS, PD, CODE][index % 5] + (index as u64 / 5) * 8, *word);
        }
        let CpuState { general, special } = &mut body.state;
        let [rax, rbx, rcx, rsp, rflags, cr3, limit, efer] = registers;
        (general.rax, general.rbx, general.rcx, general.rsp, general.rflags) = (rax, rbx, rcx, rsp, rflags);
        special.cr0 = u64::from(bits[0] & 1) | u64::from(bits[0] & 2) << 30;
        (special.cr3, special.cr4, special.efer) = (cr3, u64::from(bits[1]), efer & 0xD00);
        (special.idt.limit, special.gdt.limit) = (limit as u16, (limit >> 16) as u16);
        let segments = [&mut special.cs, &mut special.ss, &mut special.ds, &mut special.es, &mut special.fs, &mut special.tr];
        for ((segment, selector), bits) in segments.into_iter().zip(selectors).zip(bits) {
            segment.selector = selector;
            (segment.type_, segment.db, segment.dpl) = (bits & 15, bits >> 4 & 1, bits >> 5 & 3);
            (segment.l, segment.unusable) = (bits >> 7 & bits & 1, u8::from(selector & 7 == 7));
            (segment.base, segment.limit) = (u64::from(selector) << (bits & 20), (limit >> 8) as u32);
        }
        let _ = examine(&Scene { state: &body.state, memory: &body.memory });
    }
}
