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
mod actions;
mod breakpoints;
mod connection;
mod debug_registers;
mod endpoint;
mod event_loop;
mod memory;
mod monitor;
mod register_table;
mod registers;
mod resume;
mod steps;
mod target;
mod watch;

use std::os::fd::OwnedFd;

pub use endpoint::{Endpoint, Listener};

use self::connection::Channel;
use self::event_loop::Ended;
use self::target::Guest;
use crate::cpus::VcpuCount;
use crate::error::{Error, Result};
use crate::next::StopReason;
use crate::observe::{ExitCounts, Observer};
use crate::report::RunReport;
use crate::session::Session;
use crate::vm::Vm;

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
    /// What the host could not do, and [`Error::ManyVcpusToDebug`]. What the debugger does wrong is in the report.
    pub fn debug(&mut self, debugger: Debugger, tell: &dyn Fn(&str)) -> Result<RunReport> {
        if self.vcpu_count() > VcpuCount::ONE {
            return Err(Error::ManyVcpusToDebug(self.vcpu_count()));
        }
        let (stop, exits) = debug(self.session()?, debugger, tell)?;
        Ok(self.report(stop, exits))
    }
}

fn debug(session: Session<'_>, debugger: Debugger, tell: &dyn Fn(&str)) -> Result<(StopReason, ExitCounts)> {
    let stop = session.vm().stop_handle();
    let socket = match debugger {
        Debugger::Connected(socket) => Some(socket),
        Debugger::Awaited(listener) => listener.accept(&stop)?,
    };
    let mut guest = Guest::new(session, tell);
    let Some(socket) = socket else {
        // The machine is asked to stop, and does so when it is entered.
        return guest.run_on();
    };
    match event_loop::serve(&mut guest, Channel::new(socket, stop))? {
        Ended::Detached => guest.run_on(),
        Ended::Over(stop) => Ok((stop, *guest.steps.counts())),
    }
}
