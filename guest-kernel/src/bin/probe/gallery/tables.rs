//! Deaths by the tables of exceptions: what follows when an exception does not find its handler.

use core::arch::asm;
use core::hint::black_box;
use core::ptr;

use super::{Death, death};

pub(crate) const DEATHS: &[Death] = &[
    death("idt-nowhere", "has an IDT where no RAM is", idt_nowhere),
    death("idt-misaligned", "has an IDT that starts a byte too late", idt_misaligned),
    death("idt-too-short", "has an IDT without gates", idt_too_short),
    death("gate-absent", "has a gate that is not present", gate_absent),
    death("gate-selector", "has a gate into a segment that the GDT does not have", gate_selector),
    death("gate-nowhere", "has a gate to where no code is", gate_nowhere),
    death("ist-nowhere", "has a page fault whose stack nobody has made", ist_nowhere),
];

/// What `lidt` reads and `sidt` writes.
#[repr(C, packed)]
struct TableRegister {
    limit: u16,
    base: u64,
}

const GATES: usize = 32;
const GATE_SIZE: u16 = 16;
const LIMIT: u16 = GATES as u16 * GATE_SIZE - 1;
const INVALID_OPCODE: usize = 6;
const PAGE_FAULT: usize = 14;
const DOUBLE_FAULT: usize = 8;

/// A copy of the kernel's table, to be spoilt; a byte more, to be misaligned.
static mut COPY: [u128; GATES + 1] = [0; GATES + 1];

/// Copies the kernel's table, changes gates of it, and loads it.
fn spoil(gates: &[usize], change: fn(u128) -> u128) {
    let mut now = TableRegister { limit: 0, base: 0 };
    // SAFETY: `sidt` writes ten bytes. The kernel's table has 32 gates, and the copy has room for them.
    unsafe {
        asm!("sidt [{}]", in(reg) &raw mut now, options(nostack));
        let copy = (&raw mut COPY).cast::<u128>();
        ptr::copy_nonoverlapping(now.base as *const u8, copy.cast(), GATES * usize::from(GATE_SIZE));
        for &gate in gates {
            copy.add(gate).write(change(copy.add(gate).read()));
        }
    }
    load(LIMIT, (&raw const COPY) as u64);
}

fn load(limit: u16, base: u64) {
    let table = TableRegister { limit, base };
    // SAFETY: None: what exceptions do from now on is the crime.
    unsafe { asm!("lidt [{}]", in(reg) &raw const table, options(nostack)) };
}

fn idt_nowhere() {
    load(LIMIT, 0x7000_0000);
    // SAFETY: None.
    // DIES HERE: idt-nowhere
    unsafe { asm!("ud2") };
}

fn idt_misaligned() {
    spoil(&[], |gate| gate);
    load(LIMIT, (&raw const COPY) as u64 + 1);
    // SAFETY: None.
    // DIES HERE: idt-misaligned
    unsafe { asm!("ud2") };
}

fn idt_too_short() {
    load(0, 0);
    // SAFETY: None.
    // DIES HERE: idt-too-short
    unsafe { asm!("ud2") };
}

/// Bit 47 of a gate is "present" (Intel SDM vol. 3A, figure 7-8).
fn gate_absent() {
    spoil(&[INVALID_OPCODE], |gate| gate & !(1 << 47));
    // SAFETY: None.
    // DIES HERE: gate-absent
    unsafe { asm!("ud2") };
}

/// Bits 31 to 16 are the selector.
fn gate_selector() {
    spoil(&[INVALID_OPCODE], |gate| gate & !0xFFFF_0000 | 0x1230 << 16);
    // SAFETY: None.
    // DIES HERE: gate-selector
    unsafe { asm!("ud2") };
}

/// Bits 63 to 48 are bits 31 to 16 of the handler's address.
fn gate_nowhere() {
    spoil(&[INVALID_OPCODE], |gate| gate & !(0xFFFF << 48) | 0x7000 << 48);
    // SAFETY: None.
    // DIES HERE: gate-nowhere
    unsafe { asm!("ud2") };
}

/// Bits 34 to 32 choose a stack of the TSS, and the kernel's has three: at the seventh place is a 0.
fn ist_nowhere() {
    spoil(&[PAGE_FAULT, DOUBLE_FAULT], |gate| gate & !(0b111 << 32) | 7 << 32);
    // SAFETY: None.
    // DIES HERE: ist-nowhere
    unsafe { ptr::write_volatile(black_box(8_u64) as *mut u64, 1) };
}
