//! The session: packets while the guest stands, one wait while it runs.

use gdbstub::common::Signal;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub, GdbStubError, MultiThreadStopReason};
use gdbstub::target::ext::breakpoints::WatchKind;

use super::connection::{Came, Channel};
use super::resume::Stop;
use super::target::{FIRST_VCPU, Guest};
use super::watch::SocketWatch;
use crate::debug::core_file::signal;
use crate::error::{Error, Result};
use crate::next::{StopReason, process};

type Stub<'a, 'g> = GdbStubStateMachine<'a, Guest<'g>, Channel>;
type StubError = GdbStubError<Error, std::io::Error>;

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The debugger has left, and the guest runs on.
    Detached,
    /// With the guest's end, or the debugger's wish.
    Over(StopReason),
}

/// Serves a debugger until it leaves or the guest ends.
///
/// # Errors
/// What the host could not do. What the debugger does wrong ends the session.
pub(super) fn serve(guest: &mut Guest<'_>, channel: Channel) -> Result<Ended> {
    let mut session =
        Session { watch: SocketWatch::start(channel.socket(), guest.session.vm().stop_handle())?, channel };
    let stub = GdbStub::new(session.channel.twin()).run_state_machine(guest);
    let mut stub = match stub {
        Ok(stub) => stub,
        Err(error) => return lost(error, guest),
    };
    loop {
        let next = match stub {
            GdbStubStateMachine::Disconnected(inner) => {
                return Ok(session.left(inner.get_reason(), guest));
            }
            GdbStubStateMachine::CtrlCInterrupt(inner) => inner.interrupt_handled(guest, Some(interrupted())),
            GdbStubStateMachine::Running(_) => session.run(stub, guest)?,
            GdbStubStateMachine::Idle(_) => match session.wait(guest) {
                Ok(byte) => feed(stub, guest, byte),
                Err(end) => return Ok(end),
            },
        };
        stub = match next {
            Ok(stub) => stub,
            Err(error) => return lost(error, guest),
        };
    }
}

/// The session is over because of `error`: the debugger's doing, unless the host failed.
fn lost(error: StubError, guest: &Guest<'_>) -> Result<Ended> {
    // A wish to stop ends waiting for the debugger, too.
    if let Some(reason) = guest.stop_reason() {
        return Ok(Ended::Over(reason));
    }
    if error.is_connection_error() {
        return Ok(gone(guest, "the debugger closed the connection".to_owned()));
    }
    let why = format!("the debugger sent what the protocol does not allow: {error}");
    match error.into_target_error() {
        Some(error) => Err(error),
        None => Ok(gone(guest, why)),
    }
}

/// The session is over because the debugger is gone. A guest that had ended before has ended by itself.
fn gone(guest: &Guest<'_>, why: String) -> Ended {
    Ended::Over(guest.end.clone().unwrap_or(StopReason::DebuggerLeft { why }))
}

/// Gives the stub a byte, whichever state it is in.
fn feed<'a, 'g>(
    stub: Stub<'a, 'g>,
    guest: &mut Guest<'g>,
    byte: u8,
) -> std::result::Result<Stub<'a, 'g>, StubError> {
    match stub {
        GdbStubStateMachine::Idle(inner) => inner.incoming_data(guest, byte),
        GdbStubStateMachine::Running(inner) => inner.incoming_data(guest, byte),
        other => Ok(other),
    }
}

fn interrupted() -> MultiThreadStopReason<u64> {
    MultiThreadStopReason::SignalWithThread { tid: FIRST_VCPU, signal: Signal::SIGINT }
}

struct Session {
    watch: SocketWatch,
    channel: Channel,
}

impl Session {
    /// Waits for a byte while the guest stands.
    fn wait(&mut self, guest: &Guest<'_>) -> std::result::Result<u8, Ended> {
        loop {
            match self.channel.read(true) {
                Ok(Came::Byte(byte)) => return Ok(byte),
                Ok(Came::Nothing) => {}
                Ok(Came::End) => {
                    return Err(gone(guest, "the debugger closed the connection".to_owned()));
                }
                Err(error) => {
                    return Err(gone(guest, format!("the debugger's connection broke: {error}")));
                }
            }
            if let Some(reason) = guest.stop_reason() {
                return Err(Ended::Over(reason));
            }
        }
    }

    /// Lets the guest run until it has something to report, or the debugger something to say.
    fn run<'a, 'g>(
        &mut self,
        stub: Stub<'a, 'g>,
        guest: &mut Guest<'g>,
    ) -> Result<std::result::Result<Stub<'a, 'g>, StubError>> {
        if self.channel.has_unread() {
            // It came along with the wish to go on, so the watch would never see it.
            return Ok(self.hear(stub, guest));
        }
        for sentence in std::mem::take(&mut guest.sentences) {
            // A console that takes nothing is found out by the next packet.
            let _ = self.channel.show(&format!("{sentence}\n"));
        }
        let stop = guest.resume(&self.watch)?;
        if stop == Stop::Paused {
            return Ok(self.hear(stub, guest));
        }
        if let Stop::End(reason) = &stop
            && guest.end.is_none()
        {
            guest.end = Some(reason.clone());
            if is_death(reason) {
                let _ = self.channel.show(&format!("{reason}\n"));
                return Ok(report(stub, guest, death(reason)));
            }
        }
        Ok(report(stub, guest, word(&stop)))
    }

    /// Gives the stub what has come while the guest ran.
    fn hear<'a, 'g>(
        &mut self,
        mut stub: Stub<'a, 'g>,
        guest: &mut Guest<'g>,
    ) -> std::result::Result<Stub<'a, 'g>, StubError> {
        while matches!(stub, GdbStubStateMachine::Running(_)) {
            match self.channel.read(false) {
                Ok(Came::Byte(byte)) => stub = feed(stub, guest, byte)?,
                Ok(Came::Nothing) => break,
                // The wait tells of it: the stub gets there when the guest is reported as interrupted.
                Ok(Came::End) | Err(_) => return report(stub, guest, interrupted()),
            }
        }
        Ok(stub)
    }

    /// How the session ended, when the stub says so.
    fn left(&self, reason: DisconnectReason, guest: &Guest<'_>) -> Ended {
        match (reason, &guest.end) {
            (DisconnectReason::Disconnect, _) => Ended::Detached,
            (DisconnectReason::Kill, _) => gone(guest, "the debugger ended the run".to_owned()),
            (_, Some(end)) => Ended::Over(end.clone()),
            (_, None) => Ended::Detached,
        }
    }
}

fn report<'a, 'g>(
    stub: Stub<'a, 'g>,
    guest: &mut Guest<'g>,
    word: MultiThreadStopReason<u64>,
) -> std::result::Result<Stub<'a, 'g>, StubError> {
    match stub {
        GdbStubStateMachine::Running(inner) => inner.report_stop(guest, word),
        other => Ok(other),
    }
}

/// A stop in gdb's words.
fn word(stop: &Stop) -> MultiThreadStopReason<u64> {
    let tid = FIRST_VCPU;
    match stop {
        Stop::Step => MultiThreadStopReason::SignalWithThread { tid, signal: Signal::SIGTRAP },
        Stop::Int3 => MultiThreadStopReason::SwBreak(tid),
        Stop::HardwareBreakpoint => MultiThreadStopReason::HwBreak(tid),
        Stop::Watchpoint { gva, reads } => {
            let kind = if *reads { WatchKind::ReadWrite } else { WatchKind::Write };
            MultiThreadStopReason::Watch { tid, kind, addr: gva.0 }
        }
        Stop::Paused => interrupted(),
        Stop::End(reason) => MultiThreadStopReason::Exited(reason.process_exit_code()),
    }
}

/// Whether a debugger should see the guest once more: it died of something it did.
fn is_death(reason: &StopReason) -> bool {
    reason.process_exit_code() == process::GUEST_DIED
}

/// A death in the words of signals, which gdb counts in its own way.
fn death(reason: &StopReason) -> MultiThreadStopReason<u64> {
    let signal = match signal(reason).into() {
        libc::SIGSEGV => Signal::SIGSEGV,
        libc::SIGILL => Signal::SIGILL,
        libc::SIGBUS => Signal::SIGBUS,
        libc::SIGFPE => Signal::SIGFPE,
        libc::SIGTRAP => Signal::SIGTRAP,
        _ => Signal::SIGABRT,
    };
    MultiThreadStopReason::SignalWithThread { tid: FIRST_VCPU, signal }
}
