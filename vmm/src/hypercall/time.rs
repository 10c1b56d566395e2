//! The host's clocks.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use shared_abi::HypercallError;

use crate::hypercall::Answer;
use crate::machine::Machine;

/// Nanoseconds since the first question of this process; for a machine that goes on from a snapshot of another process, at
/// least those that it has seen there. Never goes back.
pub(super) fn monotonic(machine: &Machine) -> Answer {
    elapsed_ns().and_then(|now| now.checked_add(machine.clock_offset())).ok_or(HypercallError::HostFailed)
}

/// The same without what a machine has seen elsewhere.
pub(crate) fn elapsed_ns() -> Option<u64> {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).ok()
}

/// Nanoseconds since 1970; a host clock before that or after 2554 is no answer.
pub(super) fn wall() -> Answer {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| HypercallError::HostFailed)?;
    u64::try_from(elapsed.as_nanos()).map_err(|_| HypercallError::HostFailed)
}
