//! `RunReport`: how a run ended, and what was observed.

use std::fmt;

use shared_abi::{Gva, exit_code};

use crate::next::StopReason;
use crate::observe::ExitCounts;

/// How a run ended, and what was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// Why it ended.
    pub stop: StopReason,
    /// Where the vCPU would have continued; `None` when KVM does not tell.
    pub rip: Option<Gva>,
    /// How often the guest exited.
    pub exits: ExitCounts,
}

impl RunReport {
    /// Whether there is anything a user must be told: not when the guest ended as it wanted.
    #[must_use]
    pub fn is_unremarkable(&self) -> bool {
        match self.stop {
            StopReason::Exited { code } => code <= exit_code::LAST,
            StopReason::Halted { interrupts_enabled } => !interrupts_enabled,
            StopReason::ConsoleClosed => true,
            _ => false,
        }
    }
}

impl fmt::Display for RunReport {
    /// One line: why, and where.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.stop)?;
        match (&self.stop, self.rip) {
            (StopReason::Exited { .. }, _) | (_, None) => Ok(()),
            // A shutdown may reset the vCPU, and then its RIP is not where the guest died.
            (StopReason::TripleFault, Some(rip)) => write!(f, "; RIP is now {rip}"),
            (StopReason::TimedOut { .. } | StopReason::Interrupted | StopReason::Paused, Some(rip)) => {
                write!(f, " at RIP {rip}")
            }
            (_, Some(rip)) => write!(f, "; RIP is {rip}"),
        }
    }
}
