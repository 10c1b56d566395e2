//! The words between the handlers and the loop: what to do now, and why a run ended.

use std::fmt;
use std::time::Duration;

use shared_abi::{ExceptionFrame, Gpa, exit_code};

use crate::exit::{DebugEvent, InstructionBytes, little_endian};

/// What the run loop does after an exit was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Enter the guest again.
    Resume,
    /// The run is over.
    Stop(StopReason),
    /// Another vCPU has ended the run, or this piece of it: stand still, ready to go on.
    Stand,
}

/// Why a run ended. All of it is the guest's doing or the user's wish; host failures are [`Error`](crate::Error)s.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The guest ended with this code, through the exit port or the call.
    Exited {
        /// What the guest said; see [`exit_code`].
        code: u32,
    },
    /// The guest executed HLT where nothing can wake it.
    Halted {
        /// RFLAGS.IF: the guest may have waited for an interrupt, but this machine has no source of any.
        interrupts_enabled: bool,
    },
    /// An exception that the guest has no handler for, as its kernel tells.
    Exception(Box<ExceptionFrame>),
    /// An exception whose handler could not be called, nor the double-fault handler.
    TripleFault,
    /// A debugger's step is done, or its breakpoint is reached; the machine can go on.
    Debug(DebugEvent),
    /// An instruction that this host's KVM must emulate and cannot.
    EmulationFailure(InstructionBytes),
    /// Port I/O where no device is.
    UnclaimedPort {
        /// The port.
        port: u16,
        /// Bytes of the access.
        size: u8,
        /// What was written; `None` for a read.
        written: Option<u32>,
    },
    /// A memory access where neither RAM nor device is.
    UnclaimedMmio {
        /// The address.
        gpa: Gpa,
        /// Bytes of the access.
        size: u8,
        /// What was written; `None` for a read.
        written: Option<u64>,
    },
    /// The CPU refused to enter the guest.
    EntryFailed {
        /// The reason in the CPU's own words.
        hardware_reason: u64,
    },
    /// KVM gave up on the guest.
    InternalError {
        /// KVM_INTERNAL_ERROR_*.
        suberror: u32,
    },
    /// KVM_RUN failed.
    RunFailed {
        /// The errno.
        errno: i32,
    },
    /// An exit this VMM does not know.
    Unknown {
        /// The KVM_EXIT_* number.
        exit_reason: u32,
    },
    /// The guest ran for as long as it may.
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// Somebody asked for the end, such as a user by Ctrl-C.
    Interrupted,
    /// Nobody reads the console any more.
    ConsoleClosed,
    /// Somebody asked for a pause, such as a debugger; the machine can go on.
    Paused,
    /// The guest wants to be kept as it is; the machine can go on.
    SnapshotAsked,
    /// The debugger ended the run, or was lost.
    DebuggerLeft {
        /// A clause for people.
        why: String,
    },
}

impl StopReason {
    /// The end of a guest that read `data.len()` bytes at `gpa`, where nothing is.
    #[must_use]
    pub fn unclaimed_read(gpa: Gpa, data: &[u8]) -> Self {
        Self::UnclaimedMmio { gpa, size: data.len() as u8, written: None }
    }

    /// The end of a guest that wrote `data` at `gpa`, where nothing is.
    #[must_use]
    pub fn unclaimed_write(gpa: Gpa, data: &[u8]) -> Self {
        Self::UnclaimedMmio { gpa, size: data.len() as u8, written: Some(little_endian(data)) }
    }

    /// Whether somebody outside the guest wanted it.
    #[must_use]
    pub fn is_from_outside(&self) -> bool {
        matches!(self, Self::TimedOut { .. } | Self::Interrupted | Self::ConsoleClosed | Self::Paused)
    }

    /// The process exit code that `vmm run` quits with: the table in `vmm --help`.
    #[must_use]
    pub fn process_exit_code(&self) -> u8 {
        match self {
            Self::Exited { code: exit_code::PANICKED } => process::PANICKED,
            Self::Exited { code } => (*code).min(exit_code::LAST) as u8,
            Self::Halted { interrupts_enabled: false } | Self::ConsoleClosed => process::SUCCESS,
            Self::Halted { interrupts_enabled: true }
            | Self::Exception(_)
            | Self::TripleFault
            | Self::Debug(_)
            | Self::EmulationFailure(_)
            | Self::UnclaimedPort { .. }
            | Self::UnclaimedMmio { .. }
            | Self::EntryFailed { .. }
            | Self::InternalError { .. }
            | Self::RunFailed { .. }
            | Self::Unknown { .. } => process::GUEST_DIED,
            Self::TimedOut { .. } => process::TIMED_OUT,
            Self::Interrupted | Self::Paused | Self::SnapshotAsked | Self::DebuggerLeft { .. } => {
                process::INTERRUPTED
            }
        }
    }
}

/// Process exit codes beyond the guest's own 0 to 99.
pub mod process {
    /// All is well.
    pub const SUCCESS: u8 = 0;
    /// The command line is wrong (clap's choice too).
    pub const USAGE: u8 = 2;
    /// The host could not do its work.
    pub const HOST_FAILED: u8 = 100;
    /// The guest panicked.
    pub const PANICKED: u8 = 101;
    /// The guest died.
    pub const GUEST_DIED: u8 = 102;
    /// The guest ended well, and not as was expected.
    pub const UNEXPECTED: u8 = 103;
    /// The time limit was reached (the same number as timeout(1)).
    pub const TIMED_OUT: u8 = 124;
    /// Ctrl-C (128 + SIGINT, as shells say it).
    pub const INTERRUPTED: u8 = 130;
}

impl fmt::Display for StopReason {
    /// One clause for people, without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code: exit_code::PANICKED } => f.write_str("the guest panicked"),
            Self::Exited { code } if *code > exit_code::LAST => write!(
                f,
                "the guest ended with exit code {code}, which does not fit 0 to {last}; reported as {last}",
                last = exit_code::LAST
            ),
            Self::Exited { code } => write!(f, "the guest ended with exit code {code}"),
            Self::Halted { interrupts_enabled: false } => f.write_str("the guest halted with interrupts off"),
            Self::Halted { interrupts_enabled: true } => f.write_str(
                "the guest halted and waits for an interrupt, which nothing in this machine can send",
            ),
            Self::Exception(frame) => write!(f, "the guest died of {frame}"),
            Self::TripleFault => f.write_str("the guest died of a triple fault"),
            Self::Debug(event) => write!(f, "the guest reached a debugger's stop at RIP {}", event.pc),
            Self::EmulationFailure(bytes) if bytes.as_slice().is_empty() => {
                f.write_str("the guest died: this host's KVM had to emulate an instruction and cannot")
            }
            Self::EmulationFailure(bytes) => {
                write!(
                    f,
                    "the guest died: this host's KVM had to emulate the instruction {bytes:?} and cannot"
                )
            }
            Self::UnclaimedPort { port, size, written: Some(value) } => write!(
                f,
                "the guest died: it wrote {value:#x} ({size} bytes) to port {port:#x}, where no device is"
            ),
            Self::UnclaimedPort { port, size, written: None } => {
                write!(f, "the guest died: it read {size} bytes from port {port:#x}, where no device is")
            }
            Self::UnclaimedMmio { gpa, size, written: Some(value) } => write!(
                f,
                "the guest died: it wrote {value:#x} ({size} bytes) to GPA {gpa}, where neither RAM nor a device is"
            ),
            Self::UnclaimedMmio { gpa, size, written: None } => write!(
                f,
                "the guest died: it read {size} bytes from GPA {gpa}, where neither RAM nor a device is"
            ),
            Self::EntryFailed { hardware_reason } => {
                write!(f, "the guest died: the CPU refused to enter it, hardware reason {hardware_reason:#x}")
            }
            Self::InternalError { suberror } => {
                write!(f, "the guest died: KVM gave up with internal error {suberror}")
            }
            Self::RunFailed { errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                write!(f, "the guest died: KVM_RUN failed: {error}")
            }
            Self::Unknown { exit_reason } => {
                write!(
                    f,
                    "the guest died: KVM stopped it with exit reason {exit_reason}, which this VMM does not know"
                )
            }
            Self::TimedOut { limit } => write!(f, "the guest was stopped after its time limit of {limit:?}"),
            Self::Interrupted => f.write_str("the guest was interrupted"),
            Self::ConsoleClosed => f.write_str("nobody reads the guest's console any more"),
            Self::Paused => f.write_str("the guest was paused"),
            Self::SnapshotAsked => f.write_str("the guest asked for a snapshot"),
            Self::DebuggerLeft { why } => f.write_str(why),
        }
    }
}
