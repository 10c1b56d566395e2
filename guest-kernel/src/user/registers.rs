//! A program's registers, while it does not run.

use shared_abi::Gva;
use shared_abi::define::Shared;

use super::enter;
use super::memory::STACK_END;
use crate::cpu::gdt;
use crate::exceptions::ExceptionFrame;

/// The registers of a program, as it left them or will find them.
#[derive(Clone, Debug)]
pub(super) struct Registers(pub(super) ExceptionFrame);

/// The flags that a program may have as it likes: arithmetic, TF, DF, AC and ID (Intel SDM vol. 1, figure 3-8).
const OWN_FLAGS: u64 = 0xDD5 | 1 << 18 | 1 << 21;
/// IF, as nothing in ring 3 turns interrupts off, and the bit that is always 1.
const SET_FLAGS: u64 = 1 << 9 | 1 << 1;

impl Registers {
    /// All are 0 but RIP and RSP, which is as a call would leave it (System V AMD64 ABI, 3.2.2).
    pub(super) fn starting_at(entry: Gva) -> Self {
        const RETURN_ADDRESS_SIZE: u64 = 8;
        let rsp = STACK_END - RETURN_ADDRESS_SIZE;
        Self(ExceptionFrame { rip: entry.0, rsp, ..ExceptionFrame::read(&mut || 0) })
    }

    /// Lets the program run. Interrupts are off, before and afterwards.
    pub(super) fn enter(&mut self) {
        let frame = &mut self.0;
        frame.cs = gdt::USER_CODE.into();
        frame.ss = gdt::USER_DATA.into();
        frame.rflags = frame.rflags & OWN_FLAGS | SET_FLAGS;
        // SAFETY: Segments and flags are set above. RIP is in user space: it was at the start, and `arrival` calls it a
        // fault when a call or an interrupt left it elsewhere. Every space maps the kernel. Processes run on one CPU,
        // and `run` has turned interrupts off.
        unsafe { enter::enter(frame) };
    }
}
