//! Guests that were stopped, that wait, or that touched what is not there.

use iced_x86::FlowControl;
use shared_abi::Gva;

use super::{Diagnosis, Evidence};
use crate::debug::CpuState;
use crate::debug::instruction::{self, Instruction};
use crate::next::StopReason;

/// Explains every stop that is neither an exception nor a panic.
pub(super) fn diagnose(evidence: &Evidence<'_>) -> Diagnosis {
    let stop = &evidence.report.stop;
    let is_port = |instruction: &Instruction| {
        let word =
            instruction.text.split([' ', ',']).find(|word| !word.starts_with("rep")).unwrap_or_default();
        matches!(word, "in" | "out" | "insb" | "insw" | "insd" | "outsb" | "outsw" | "outsd")
    };
    let at = match stop {
        StopReason::UnclaimedPort { .. } | StopReason::Exited { .. } => evidence.left_at(is_port),
        StopReason::UnclaimedMmio { gpa, .. } => evidence.left_at(|instruction| {
            let space = evidence.space();
            instruction
                .operands
                .iter()
                .any(|operand| space.translate(operand.gva).is_some_and(|mapping| mapping.gpa == *gpa))
        }),
        StopReason::Halted { .. } => evidence.left_at(|instruction| instruction.text == "hlt"),
        _ => evidence.state.rip(),
    };
    let mut state = *evidence.state;
    state.general.rip = at.0;
    let mut diagnosis = evidence.plain(&state);
    diagnosis.died = stop.process_exit_code() == crate::next::process::GUEST_DIED;
    diagnosis.instruction = Instruction::at_rip(&state, &evidence.space());
    match stop {
        StopReason::TimedOut { .. } | StopReason::Interrupted => tell_loop(evidence, &mut diagnosis, &state),
        StopReason::Halted { interrupts_enabled: true } => {
            diagnosis.cause =
                "it halted and waits for an interrupt, which nothing in this machine can send".to_owned();
            diagnosis.hint = Some("wait in a loop that asks, or end the run (`power::exit`)".to_owned());
        }
        StopReason::UnclaimedPort { .. } => {
            diagnosis.hint =
                Some("`shared-abi/src/ports.rs` has the ports that devices listen at".to_owned());
        }
        StopReason::UnclaimedMmio { .. } => {
            diagnosis.hint =
                Some("the page tables lead to a physical address without RAM or device".to_owned());
        }
        StopReason::EntryFailed { .. } => {
            diagnosis.hint = Some(
                "the guest has loaded registers that no CPU accepts together; look at the last ones"
                    .to_owned(),
            );
        }
        _ => {}
    }
    diagnosis
}

/// What a guest was about that went on and on.
fn tell_loop(evidence: &Evidence<'_>, diagnosis: &mut Diagnosis, state: &CpuState) {
    let Some(Loop { start, end, is_idle }) = Loop::around(evidence, state) else { return };
    let size = end.0.saturating_sub(start.0);
    diagnosis.facts.push(if is_idle {
        format!("it spins at {start}: a loop of {size} bytes that changes nothing")
    } else {
        format!("it runs in a short loop, {start}..{end}")
    });
}

/// A loop of few instructions without a call.
struct Loop {
    start: Gva,
    /// Behind the jump that closes it.
    end: Gva,
    /// Whether nothing in it changes a register or memory, so that it cannot end by itself.
    is_idle: bool,
}

/// Instructions that are looked at for the end of a loop.
const MAX_INSTRUCTIONS: usize = 16;
/// Bytes of the longest loop that is called short.
const MAX_SIZE: u64 = 64;

impl Loop {
    fn around(evidence: &Evidence<'_>, state: &CpuState) -> Option<Self> {
        let rip = state.rip();
        let (start, end) = closing_jump(evidence, state, rip)?;
        // The last instruction of all ends at 0.
        let is_around = start <= rip && end.0.checked_sub(start.0).is_some_and(|size| size <= MAX_SIZE);
        if !is_around {
            return None;
        }
        let mut at = start;
        let mut is_idle = true;
        while at < end {
            let decoded = decoded_at(evidence, state, at)?;
            let does_nothing =
                matches!(decoded.mnemonic(), iced_x86::Mnemonic::Pause | iced_x86::Mnemonic::Nop)
                    || decoded.flow_control() == FlowControl::UnconditionalBranch;
            is_idle &= does_nothing;
            at = Gva(decoded.next_ip());
        }
        Some(Self { start, end, is_idle })
    }
}

/// The first jump backwards at or behind `from`: where it leads, and where it ends.
fn closing_jump(evidence: &Evidence<'_>, state: &CpuState, from: Gva) -> Option<(Gva, Gva)> {
    let mut at = from;
    for _ in 0..MAX_INSTRUCTIONS {
        let decoded = decoded_at(evidence, state, at)?;
        let target = Gva(decoded.near_branch_target());
        match decoded.flow_control() {
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch if target <= from => {
                return Some((target, Gva(decoded.next_ip())));
            }
            FlowControl::Next | FlowControl::ConditionalBranch => {}
            _ => return None,
        }
        at = Gva(decoded.next_ip());
    }
    None
}

fn decoded_at(evidence: &Evidence<'_>, state: &CpuState, at: Gva) -> Option<iced_x86::Instruction> {
    let bytes = instruction::bytes_at(&evidence.space(), at);
    instruction::decode(at, &bytes, instruction::bits(&state.special))
}
