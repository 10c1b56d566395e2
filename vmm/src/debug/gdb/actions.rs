//! What the debugger wants done when the guest is resumed: gdb's `vCont`.

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::multithread::{
    MultiThreadRangeStepping, MultiThreadRangeSteppingOps, MultiThreadResume, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use shared_abi::Gva;

use super::target::Guest;
use crate::error::Result;

/// What a vCPU does when the guest is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Runs.
    Continue,
    /// Executes one instruction.
    Step,
    /// Executes instructions for as long as they lie in this range.
    StepOutOf { start: Gva, end: Gva },
}

impl MultiThreadResume for Guest<'_> {
    fn resume(&mut self) -> Result<()> {
        // The event loop lets the guest run.
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<()> {
        self.action = Action::Continue;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, _: Tid, _: Option<Signal>) -> Result<()> {
        self.action = Action::Continue;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Guest<'_> {
    fn set_resume_action_step(&mut self, _: Tid, _: Option<Signal>) -> Result<()> {
        self.action = Action::Step;
        Ok(())
    }
}

impl MultiThreadRangeStepping for Guest<'_> {
    fn set_resume_action_range_step(&mut self, _: Tid, start: u64, end: u64) -> Result<()> {
        self.action = Action::StepOutOf { start: Gva(start), end: Gva(end) };
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Guest<'_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<()> {
        // The others stand still: there are none.
        Ok(())
    }
}
