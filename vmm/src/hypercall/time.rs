//! The host's clocks.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use shared_abi::HypercallError;

use crate::hypercall::Answer;

/// Nanoseconds since the first question of this process; never goes back.
pub(super) fn monotonic() -> Answer {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).map_err(|_| HypercallError::HostFailed)
}

/// Nanoseconds since 1970; a host clock before that or after 2554 is no answer.
pub(super) fn wall() -> Answer {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| HypercallError::HostFailed)?;
    u64::try_from(elapsed.as_nanos()).map_err(|_| HypercallError::HostFailed)
}
