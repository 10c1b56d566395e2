//! RAM that nobody has touched yet: on some hosts KVM knows nothing of it (`vmm/src/memory_slots.rs`), and no guest may notice.

use vmm::explain::Answers;
use vmm::{StopReason, Surroundings, Vm};

use crate::harness::{machine_code, probe};

/// HLT with interrupts off: all went well.
const DONE: StopReason = StopReason::Halted { interrupts_enabled: false };
const HLT: &[u8] = &[0xF4];
const UD2: &[u8] = &[0x0F, 0x0B];

/// Beyond all that a start touches.
const FAR: u32 = 48 << 20;

#[test]
fn ram_far_away_is_there_when_it_is_first_touched() {
    for memory in ["128M", "3G", "64G"] {
        assert_eq!(probe("far-memory").memory(memory).run().succeeded(), "all of it remembers\n", "{memory}");
    }
}

/// mov rax, VALUE; mov [ADDRESS], rax
fn store(address: u32, value: u64) -> Vec<u8> {
    [&[0x48, 0xB8][..], &value.to_le_bytes(), &[0x48, 0x89, 0x04, 0x25], &address.to_le_bytes()].concat()
}

/// mov ebx, ADDRESS
fn point_to(address: u32) -> Vec<u8> {
    [&[0xBB][..], &address.to_le_bytes()].concat()
}

#[test]
fn an_access_that_comes_in_two_parts_is_one() {
    // mov rcx, [rbx]; cmp rcx, rax; je +2; ud2
    let compare = [&[0x48, 0x8B, 0x0B, 0x48, 0x39, 0xC1, 0x74, 0x02][..], UD2, HLT].concat();
    // movups xmm0, [rbx]
    let vector = [&[0x0F, 0x10, 0x03][..], HLT].concat();
    for code in [
        [store(FAR - 4, 0x1122_3344_5566_7788), point_to(FAR - 4), compare.clone()].concat(),
        [store(FAR + 0xFFC, 0x1122_3344_5566_7788), point_to(FAR + 0xFFC), compare].concat(),
        [point_to(FAR + 0x800), vector].concat(),
    ] {
        machine_code(&code).memory("64M").run().stopped_by(&DONE);
    }
}

/// Code that loads an interrupt table, whose handler of #UD ends well, and brings about #UD with an untouched stack.
fn exception_on_a_far_stack() -> Vec<u8> {
    let [gdt, idt, registers] = [0x20_0000_u32, 0x20_1000, 0x20_2000];
    const HANDLER: u64 = 0x10_0000 + 95;
    let gate = HANDLER & 0xFFFF | 8 << 16 | 0x8E00 << 32 | HANDLER >> 16 << 48;
    let code = [
        store(gdt + 8, 0x00AF_9B00_0000_FFFF),
        store(idt + 6 * 16, gate),
        store(registers, u64::from(gdt) << 16 | 15),
        store(registers + 16, u64::from(idt) << 16 | 0xFFF),
        // lgdt [registers]; lidt [registers + 16]
        [&[0x0F, 0x01, 0x14, 0x25][..], &registers.to_le_bytes()].concat(),
        [&[0x0F, 0x01, 0x1C, 0x25][..], &(registers + 16).to_le_bytes()].concat(),
        // mov esp, FAR
        [&[0xBC][..], &FAR.to_le_bytes(), UD2].concat(),
    ]
    .concat();
    assert_eq!(0x10_0000 + code.len() as u64, HANDLER);
    [&code, HLT].concat()
}

#[test]
fn an_exception_finds_a_stack_that_nobody_has_touched() {
    machine_code(&exception_on_a_far_stack()).memory("64M").run().stopped_by(&DONE);
}

#[test]
fn a_machine_from_a_snapshot_has_all_ram_that_the_other_had() {
    let mut vm = machine_code(&exception_on_a_far_stack()).memory("96M").run().vm;
    let told = |vm: &Vm| Answers::of(vm).expect("the host works").memory.told;

    let clone =
        vm.snapshot().and_then(|snapshot| snapshot.spawn(Surroundings::default())).expect("it stands");

    assert_eq!((told(&clone), told(&vm)), (96 << 20, 96 << 20));
}
