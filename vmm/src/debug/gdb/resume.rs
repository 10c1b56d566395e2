//! Letting the guest run under a debugger: continue, one instruction, or out of a range of them.
//!
//! A step is KVM's business (KVM_GUESTDBG_SINGLESTEP: the CPU's trap flag) but for two kinds of instruction:
//!
//! - One with a breakpoint on it would stop before it was executed. It runs with that breakpoint lifted.
//! - One that exits, such as OUT, is finished by the *next* entry, and a KVM may count from there and execute one more.
//!   So when a step exits and was answered, the machine is paused at once: the next entry finishes the instruction and
//!   comes back.

use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_SINGLESTEP,
    KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP, kvm_guest_debug, kvm_regs,
};
use shared_abi::Gva;

use super::actions::Action;
use super::breakpoints::Trap;
use super::debug_registers::{Event, Slot};
use super::target::Guest;
use super::watch::SocketWatch;
use crate::error::Result;
use crate::next::StopReason;
use crate::observe::{ExitCounts, Observer};

/// Why the guest stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A step is done.
    Step,
    /// It is at an `int3`: a breakpoint, or one of its own.
    Int3,
    /// It is at a hardware breakpoint.
    HardwareBreakpoint,
    /// It has accessed what is watched here.
    Watchpoint { gva: Gva, reads: bool },
    /// The debugger has something to say.
    Paused,
    /// Without a debugger the run would be over.
    End(StopReason),
}

impl Guest<'_> {
    /// Lets the guest run as the debugger wants. It is paused when `watch` sees something come.
    ///
    /// # Errors
    /// What the host could not do.
    pub(super) fn resume(&mut self, watch: &SocketWatch) -> Result<Stop> {
        if let Some(end) = self.end.clone() {
            return Ok(Stop::End(end));
        }
        watch.begin();
        let stop = match self.action {
            Action::Continue => self.go_on(),
            Action::Step => self.step(),
            Action::StepOutOf { start, end } => self.step_out_of(start, end, watch),
        };
        watch.end();
        self.session.forget_pause();
        stop
    }

    fn go_on(&mut self) -> Result<Stop> {
        let rip = self.rip()?;
        if self.planted.is_at(rip) || self.hardware.stops_at(rip) {
            match self.step()? {
                Stop::Step => {}
                other => return Ok(other),
            }
            // Two in a row: the second one counts.
            let rip = self.rip()?;
            if self.planted.is_at(rip) {
                return Ok(Stop::Int3);
            }
            if self.hardware.stops_at(rip) {
                return Ok(Stop::HardwareBreakpoint);
            }
        }
        self.set_debug(0, None)?;
        self.run()
    }

    fn step_out_of(&mut self, start: Gva, end: Gva, watch: &SocketWatch) -> Result<Stop> {
        loop {
            match self.step()? {
                Stop::Step => {}
                other => return Ok(other),
            }
            let rip = self.rip()?;
            if self.planted.is_at(rip) {
                return Ok(Stop::Int3);
            }
            if self.hardware.stops_at(rip) {
                return Ok(Stop::HardwareBreakpoint);
            }
            if rip < start || end <= rip {
                return Ok(Stop::Step);
            }
            if watch.has_paused() {
                return Ok(Stop::Paused);
            }
        }
    }

    /// Executes one instruction, whatever breakpoint is on it.
    fn step(&mut self) -> Result<Stop> {
        let rip = self.rip()?;
        self.planted.lift(&self.memory, rip);
        // No interrupt may come in between: the step would end in its handler.
        let stepping = KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ;
        let stop = self.set_debug(stepping, Some(rip)).and_then(|()| {
            (self.steps.is_stepping, self.steps.has_stepped) = (true, false);
            let stop = self.run();
            self.steps.is_stepping = false;
            stop
        });
        self.planted.plant_again(&self.memory, rip);
        match stop? {
            Stop::Paused if self.steps.has_stepped => Ok(Stop::Step),
            other => Ok(other),
        }
    }

    /// Tells KVM what to stop at: all there is, but not the hardware breakpoint at `except`. An `int3` of the guest's
    /// own that was told of now reaches the guest.
    fn set_debug(&mut self, how: u32, except: Option<Gva>) -> Result<()> {
        let mut control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_USE_HW_BP | how;
        if self.own_int3.take() == Some(self.rip()?) {
            control |= KVM_GUESTDBG_INJECT_BP;
        }
        let arch = self.hardware.values(except);
        let debug = kvm_guest_debug { control, pad: 0, arch };
        if how & KVM_GUESTDBG_BLOCKIRQ == 0 || self.session.stop_for(&debug).is_err() {
            // Linux before 5.15 has no KVM_GUESTDBG_BLOCKIRQ.
            let debug = kvm_guest_debug { control: control & !KVM_GUESTDBG_BLOCKIRQ, ..debug };
            self.session.stop_for(&debug)?;
        }
        Ok(())
    }

    fn run(&mut self) -> Result<Stop> {
        let reason = self.session.resume(&mut self.steps)?;
        self.understand(reason)
    }

    /// What the run's end means to a debugger.
    fn understand(&mut self, reason: StopReason) -> Result<Stop> {
        /// The vector of `int3`, #BP.
        const BREAKPOINT: u32 = 3;
        Ok(match reason {
            StopReason::Paused => Stop::Paused,
            StopReason::Debug(event) if event.exception == BREAKPOINT => self.at_int3()?,
            StopReason::Debug(event) => match self.hardware.hit(event.dr6) {
                Some(Slot { event: Event::Execution, .. }) => Stop::HardwareBreakpoint,
                Some(Slot { gva, event: Event::Access { reads, .. } }) => Stop::Watchpoint { gva, reads },
                None => Stop::Step,
            },
            // A KVM that emulates the guest's instructions may not know this one.
            StopReason::EmulationFailure(_) if self.byte_at(self.rip()?) == Some(Trap::Int3.byte()) => {
                self.at_int3()?
            }
            StopReason::Halted { .. } if self.go_back_to_halt()? => Stop::Int3,
            other => Stop::End(other),
        })
    }

    /// When a planted `hlt` has stopped the guest: goes back to where it is.
    fn go_back_to_halt(&mut self) -> Result<bool> {
        let registers = self.vcpu().registers()?;
        let rip = registers.rip.wrapping_sub(1);
        let is_planted = self.planted.trap() == Trap::Halt && self.planted.is_at(Gva(rip));
        if is_planted {
            self.vcpu().set_registers(&kvm_regs { rip, ..registers })?;
        }
        Ok(is_planted)
    }

    fn at_int3(&mut self) -> Result<Stop> {
        let rip = self.rip()?;
        if !self.planted.is_at(rip) {
            self.own_int3 = Some(rip);
        }
        Ok(Stop::Int3)
    }

    /// Leaves the machine as if no debugger had been there, and lets it run to its end.
    ///
    /// # Errors
    /// What the host could not do.
    pub(super) fn run_on(mut self) -> Result<(StopReason, ExitCounts)> {
        self.planted.remove_all(&self.memory);
        self.session.stop_for(&kvm_guest_debug::default())?;
        let stop = match self.end {
            Some(end) => end,
            None => self.session.resume(&mut self.steps)?,
        };
        Ok((stop, *self.steps.counts()))
    }
}
