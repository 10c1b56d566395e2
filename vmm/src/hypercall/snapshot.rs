//! Calls about the machine as a whole: to be kept, and to be told apart from its copies.
//!
//! The guest's wish ends the run, or this piece of it; whoever runs the machine takes the snapshot
//! ([`Vm::snapshot`](crate::Vm::snapshot)) and goes on. Guest side: `guest-kernel/src/snapshot.rs`.

use shared_abi::HypercallError;

use super::{Context, Outcome, space};
use crate::config::SnapshotCalls;
use crate::error::Result;
use crate::hypercall::Answer;
use crate::machine::Machine;
use crate::next::StopReason;
use crate::snapshot::can_have_inner_guests;

/// Has the machine stand still, with the answer of the one that goes on at once.
pub(super) fn ask(context: &Context<'_>) -> Result<Outcome> {
    let machine = context.machine;
    if machine.snapshot_calls() == SnapshotCalls::Refused {
        return Ok(Outcome::Answer(Err(HypercallError::NotGranted)));
    }
    let has_inner_guests = can_have_inner_guests(&context.vcpu.special_registers()?).is_some();
    if has_inner_guests || machine.open_channels() > 0 || machine.files().open_count() > 0 {
        return Ok(Outcome::Answer(Err(HypercallError::NotPermitted)));
    }
    machine.asked_for_snapshot(context.vcpu.id());
    Ok(Outcome::AnswerAndStop(Ok(0), StopReason::SnapshotAsked))
}

/// The machine's random number, made when it is first asked for.
pub(super) fn identity(machine: &Machine) -> Answer {
    let mut identity = machine.identity();
    if *identity == 0 {
        let mut bytes = [0; 8];
        space::fill_randomly(&mut bytes).map_err(|_| HypercallError::HostFailed)?;
        // 0 stands for none yet.
        *identity = u64::from_le_bytes(bytes).max(1);
    }
    Ok(*identity)
}
