//! The rights of pages, as the CPU sees them: what must fault does, and what is allowed works.
//!
//! Each guest is one access followed by "exit with code 0". There is no IDT, so a fault ends in a triple fault.

use vmm::{Contract, KernelSource, StopReason, Vm, VmConfig};

use crate::harness::elf::{Elf, R, RW, RWX, RX, Segment};

const TEXT: u32 = 0x10_0000;
const CONSTANTS: u32 = 0x10_1000;
const DATA: u32 = 0x10_2000;
const ANYTHING: u32 = 0x10_3000;
const FREE: u32 = 0x80_0000;

/// xor eax, eax; out 0xF4, al
const EXIT: [u8; 4] = [0x31, 0xC0, 0xE6, 0xF4];

#[test]
fn reading_faults_where_nothing_is_mapped() {
    for (gva, what) in [
        (0, "the null page"),
        (0xFFF, "the end of the null page"),
        (0x3_F000, "the stack guard"),
        (0x3_FFFF, "the end of the stack guard"),
        (0x100_0000, "behind 16 MiB of RAM"),
        (0xFFFF_FFFF, "the top of the upper half"),
    ] {
        assert_eq!(stop_of(&read(gva)), StopReason::TripleFault, "reading {what}");
    }
    for (gva, what) in [
        (0x1000, "the boot info"),
        (0x2000, "the arguments"),
        (0x4_0000, "the end of the stack"),
        (0x8_0000, "the page tables"),
        (TEXT, "text"),
        (CONSTANTS, "constants"),
        (DATA, "data"),
        (0xFF_FFFF, "the last byte of RAM"),
    ] {
        assert_eq!(stop_of(&read(gva)), StopReason::Exited { code: 0 }, "reading {what}");
    }
}

#[test]
fn writing_faults_where_pages_are_read_only() {
    for (gva, what) in [
        (0x1000, "the boot info"),
        (0x2000, "the arguments"),
        (0xFFFF, "the end of the arguments"),
        (0x3_F000, "the stack guard"),
        (TEXT + 0xFFF, "text"),
        (CONSTANTS, "constants"),
    ] {
        assert_eq!(stop_of(&write(gva)), StopReason::TripleFault, "writing {what}");
    }
    for (gva, what) in [
        (0x1_0000, "free RAM above the arguments"),
        (0x4_0000, "the end of the stack"),
        (DATA, "data"),
        (ANYTHING, "a segment with all rights"),
        (FREE, "free RAM"),
    ] {
        assert_eq!(stop_of(&write(gva)), StopReason::Exited { code: 0 }, "writing {what}");
    }
}

#[test]
fn executing_faults_outside_executable_segments() {
    for (gva, what) in [(0x7_F000, "the stack"), (DATA, "data"), (FREE, "free RAM")] {
        assert_eq!(stop_of(&write_and_execute(gva)), StopReason::TripleFault, "executing {what}");
    }
    assert_eq!(stop_of(&execute(CONSTANTS)), StopReason::TripleFault);
    assert_eq!(stop_of(&execute(ANYTHING)), StopReason::Exited { code: 0 });
    assert_eq!(stop_of(&write_and_execute(ANYTHING)), StopReason::Exited { code: 0 });
}

#[test]
fn a_stack_that_grows_too_far_faults() {
    // push rax; jmp to the push
    assert_eq!(stop_of(&[0x50, 0xEB, 0xFD]), StopReason::TripleFault);
}

/// mov al, [gva]; the address is sign-extended.
fn read(gva: u32) -> Vec<u8> {
    [&[0x8A, 0x04, 0x25][..], &gva.to_le_bytes(), &EXIT].concat()
}

/// mov byte [gva], 0
fn write(gva: u32) -> Vec<u8> {
    [&[0xC6, 0x04, 0x25][..], &gva.to_le_bytes(), &[0], &EXIT].concat()
}

/// mov eax, gva; jmp rax
fn execute(gva: u32) -> Vec<u8> {
    [&[0xB8][..], &gva.to_le_bytes(), &[0xFF, 0xE0]].concat()
}

/// mov dword [gva], EXIT; then as `execute`
fn write_and_execute(gva: u32) -> Vec<u8> {
    [&[0xC7, 0x04, 0x25][..], &gva.to_le_bytes(), &EXIT, &execute(gva)].concat()
}

/// Runs `code` in a machine of 16 MiB whose image has a page of each kind, and `EXIT` at the start of each.
fn stop_of(code: &[u8]) -> StopReason {
    let image = Elf::new(TEXT.into())
        .with(Segment::new(TEXT.into(), RX, code).in_memory(0x1000))
        .with(Segment::new(CONSTANTS.into(), R, &EXIT))
        .with(Segment::new(DATA.into(), RW, &EXIT))
        .with(Segment::new(ANYTHING.into(), RWX, &EXIT));
    let mut config = VmConfig::new(KernelSource::Bytes(image.to_bytes().into()));
    config.contract = Contract::None;
    let report = Vm::build(config).and_then(|mut vm| vm.run());
    report.expect("a right image on a host with KVM").stop
}
