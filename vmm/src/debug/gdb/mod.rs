//! gdb's remote protocol: a debugger looks at the guest, stops it and lets it go on.
//!
//! ```text
//! gdb ── packets ──► event_loop ──► target: registers, memory        the guest stands
//!                        │      ──► breakpoints, debug_registers
//!                        │      ──► monitor
//!                        └─ resume ──► run_loop ──► KVM_RUN          the guest runs
//!                                        ▲ pause
//!                              watch ────┘ a byte has come
//! ```
//!
//! The crate `gdbstub` knows the protocol; this module knows the machine, an extension of the protocol a file. The run
//! loop is the one that every guest has: a breakpoint ends the run with [`StopReason::Debug`], and the next run goes on.
//!
//! What a debugger sends is input from outside, as a guest's is: it ends the session at worst.

mod abilities;
mod breakpoints;
mod connection;
mod debug_registers;
mod endpoint;
mod event_loop;
mod memory;
mod monitor;
mod registers;
mod resume;
mod target;
mod watch;

use std::os::fd::OwnedFd;

pub use endpoint::{Endpoint, Listener};

use self::connection::Channel;
use self::event_loop::Ended;
use self::target::Guest;
use crate::error::Result;
use crate::next::StopReason;
use crate::observe::{ExitCounts, Observer};
use crate::report::RunReport;
use crate::stop::Watchdog;
use crate::vm::{Opened, Vm};

/// Who debugs.
#[derive(Debug)]
pub enum Debugger {
    /// Who connects here first.
    Awaited(Listener),
    /// Who is at the other end of this socket.
    Connected(OwnedFd),
}

impl Vm {
    /// Runs the guest under a debugger, which finds it before its first instruction. The time limit counts from now,
    /// whether the guest runs or stands. What cannot be told through the protocol goes to `tell`.
    ///
    /// # Errors
    /// What the host could not do. What the debugger does wrong is in the report.
    pub fn debug(&mut self, debugger: Debugger, tell: &dyn Fn(&str)) -> Result<RunReport> {
        let (stop, exits) = self.debug_to_stop(debugger, tell)?;
        Ok(RunReport { rip: self.vcpu().rip(), stop, exits })
    }

    fn debug_to_stop(&mut self, debugger: Debugger, tell: &dyn Fn(&str)) -> Result<(StopReason, ExitCounts)> {
        let Opened { vcpu, machine, map, image } = self.open();
        let _attached = vcpu.attach(&machine.stop)?;
        let _watchdog =
            machine.time_limit.map(|limit| Watchdog::start(machine.stop.clone(), limit)).transpose()?;
        let socket = match debugger {
            Debugger::Connected(socket) => Some(socket),
            Debugger::Awaited(listener) => listener.accept(&machine.stop)?,
        };
        let Some(socket) = socket else {
            let stop = machine.stop_reason().unwrap_or(StopReason::Interrupted);
            return Ok((stop, ExitCounts::default()));
        };
        let channel = Channel::new(socket, machine.stop.clone());
        let mut guest = Guest::new(vcpu, machine, map, image, tell);
        let ended = event_loop::serve(&mut guest, channel);
        let result = match ended {
            Ok(Ended::Detached) => guest.run_on(),
            Ok(Ended::Over(stop)) => Ok((stop, *guest.steps.counts())),
            Err(error) => Err(error),
        };
        let flushed = machine.flush_console();
        let result = result?;
        flushed.map(|()| result)
    }
}
