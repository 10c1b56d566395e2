//! The code around a death: the instruction that did it, also when RIP is behind it or the tables have lost it.

use shared_abi::Gva;

use super::Evidence;
use crate::debug::CpuState;
use crate::debug::instruction::{Instruction, bytes_at, linear_rip};
use crate::guest_space::GuestSpace;

impl Evidence<'_> {
    /// Whether the tables of the start have code at `gva`.
    pub(super) fn is_code_at_start(&self, gva: Gva) -> bool {
        let at_start = GuestSpace::new(self.memory, self.map.first_tables());
        at_start.translate(gva).is_some_and(|mapping| mapping.executable)
    }

    /// The instruction at RIP; where the tables of the moment do not map it, as those of the start have it.
    pub(super) fn instruction(&self, state: &CpuState) -> Option<Instruction> {
        Instruction::at_rip(state, &state.space(self.memory)).or_else(|| {
            let rip = linear_rip(state);
            let image = self.map.image();
            let is_in_image = image.start <= rip.0 && rip.0 < image.end;
            let at_start = GuestSpace::new(self.memory, self.map.first_tables());
            is_in_image.then(|| Instruction::at_rip(state, &at_start)).flatten()
        })
    }

    /// Where the instruction stands that left the guest, when RIP is already behind it.
    pub(super) fn left_at(&self, is_it: impl Fn(&Instruction) -> bool) -> Gva {
        let rip = self.state.rip();
        let here = Instruction::at_rip(self.state, &self.space());
        if here.is_some_and(|instruction| is_it(&instruction)) {
            return rip;
        }
        self.instruction_before(rip).map_or(rip, |instruction| instruction.gva)
    }

    /// The instruction that ends at `end`: found by reading its function from the start.
    fn instruction_before(&self, end: Gva) -> Option<Instruction> {
        let (_, offset) = self.symbols.function_at(Gva(end.0.checked_sub(1)?))?;
        let mut at = Gva(end.0 - 1 - offset);
        for _ in 0..MAX_INSTRUCTIONS {
            let bytes = bytes_at(&self.space(), at);
            let instruction = Instruction::decode(at, &bytes, self.state)?;
            let next = at.checked_add(instruction.bytes.len() as u64)?;
            if next == end {
                return Some(instruction);
            }
            if next > end {
                return None;
            }
            at = next;
        }
        None
    }
}

/// Instructions of the longest function that is read.
const MAX_INSTRUCTIONS: usize = 100_000;
