//! The IDT: where the CPU continues when an exception or interrupt comes.
//!
//! A gate for each of the 256 vectors ([`vectors`]), all of them constants: the linker puts the entries at a known address
//! ([`entry`]), so the table is ready in the image and loading it is one instruction. Filling it at start would cost
//! more than the rest of the start together, where a KVM interprets the kernel.

use super::{gdt, tss, vectors};
use crate::exceptions::entry;

/// The table.
pub static IDT: [Gate; vectors::COUNT] = gates();

/// A 64-bit gate (Intel SDM vol. 3A, figure 7-8).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    offset_0: u16,
    selector: u16,
    /// The place in the TSS's interrupt stack table, or 0 for the stack that is interrupted.
    stack: u8,
    /// Present, ring 0 and type.
    kind: u8,
    offset_16: u16,
    offset_32: u32,
    reserved: u32,
}

impl Gate {
    /// `P` and the type "interrupt gate": interrupts are off in the handler (Intel SDM vol. 3A, table 3-2).
    const INTERRUPT: u8 = 1 << 7 | 0b1110;

    /// `DPL`: `int n` and `int3` of ring 3 may use the gate. For all others they are a #GP.
    const RING_3: u8 = 0b11 << 5;

    const fn to(address: u64, stack: u8) -> Self {
        Self {
            offset_0: address as u16,
            selector: gdt::CODE,
            stack,
            kind: Self::INTERRUPT,
            offset_16: (address >> 16) as u16,
            offset_32: (address >> 32) as u32,
            reserved: 0,
        }
    }
}

const fn gates() -> [Gate; vectors::COUNT] {
    let mut gates = [Gate::to(0, 0); vectors::COUNT];
    let mut vector = 0;
    while vector < vectors::COUNT {
        gates[vector] = Gate::to(entry::address_of(vector), tss::stack_for(vector));
        if vector == shared_abi::Vector::Breakpoint as usize || vector == vectors::SYSTEM_CALL as usize {
            gates[vector].kind |= Gate::RING_3;
        }
        vector += 1;
    }
    gates
}

/// Loads the table.
#[cfg(target_os = "none")]
pub(super) fn load() {
    static TABLE: super::TableRegister =
        super::TableRegister::new(size_of_val(&IDT), (&raw const IDT).cast());
    // SAFETY: The table lives as long as the kernel. Its gates lead to the entries, where the linker has put them, in
    // the code segment that the GDT has.
    unsafe { lidt(&TABLE) };
}

/// Takes the table away: from now on every exception ends the run as a triple fault.
#[cfg(target_os = "none")]
pub fn unload() {
    static NONE: super::TableRegister = super::TableRegister::new(1, core::ptr::null());
    // SAFETY: A table too short for any gate: the CPU shuts down where it would have read one.
    unsafe { lidt(&NONE) };
}

/// Takes the table away; on the host there is none.
#[cfg(not(target_os = "none"))]
pub fn unload() {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// # Safety
/// The gates of `table` lead to code that keeps what it interrupts.
#[cfg(target_os = "none")]
unsafe fn lidt(table: &'static super::TableRegister) {
    // SAFETY: The instruction reads ten bytes. What exceptions do from now on is the caller's promise.
    unsafe { core::arch::asm!("lidt [{}]", in(reg) table, options(nostack, preserves_flags)) };
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn a_gate_has_its_offset_in_three_pieces() {
        let gate = Gate::to(0x1122_3344_5566_7788, 1);
        assert_eq!((gate.offset_0, gate.offset_16, gate.offset_32), (0x7788, 0x5566, 0x1122_3344));
        assert_eq!((gate.selector, gate.stack, gate.kind, size_of::<Gate>()), (8, 1, 0x8E, 16));
    }

    #[test]
    fn every_vector_has_an_entry_and_three_have_a_stack() {
        for (vector, gate) in IDT.iter().enumerate() {
            let address = u64::from(gate.offset_16) << 16 | u64::from(gate.offset_0);
            assert_eq!(address, entry::ADDRESS + 16 * vector as u64);
            let stack = [(8, 1), (2, 2), (18, 3)].into_iter().find(|(of, _)| *of == vector);
            assert_eq!(gate.stack, stack.map_or(0, |(_, place)| place), "{vector}");
        }
    }

    #[test]
    fn two_gates_are_for_programs() {
        let open = IDT.iter().enumerate().filter(|(_, gate)| gate.kind >> 5 & 0b11 == 3);
        assert!(open.map(|(vector, _)| vector).eq([3, 0x80]));
    }
}
