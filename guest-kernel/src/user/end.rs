//! What becomes of a process: what it waits for, and how it ends.

use alloc::boxed::Box;
use core::fmt;

use crate::exceptions::{ExceptionFrame, Vector};

/// What a process waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Something to read from a pipe.
    Bytes,
    /// Room in a pipe.
    Room,
    /// Something typed.
    Typing,
    /// A time, by the [clock](crate::time::clock).
    Until(u64),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes from a pipe",
            Self::Room => "room in a pipe",
            Self::Typing => "something typed",
            Self::Until(_) => "its time",
        })
    }
}

/// How a process has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It called [`Exit`](abi::SystemCall::Exit) with this code.
    Exited(u64),
    /// It did what it cannot do, with these registers.
    Died(Box<ExceptionFrame>),
    /// It waits for what only others could give that wait themselves.
    Stuck(Wait),
    /// It has used up [the time it had](Process::with_time_limit).
    OutOfTime,
}

impl fmt::Display for End {
    /// `exited with 0`, `died of #PF (page fault) at 0x8 (a read, nothing is mapped), RIP 0x8000100003`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Stuck(wait) => write!(f, "waits for {wait} for ever"),
            Self::OutOfTime => f.write_str("has used up its time"),
            Self::Died(frame) => {
                write!(f, "died of {}", **frame)?;
                match frame.vector() {
                    Some(Vector::PageFault) => write!(f, " ({})", access(frame.error_code))?,
                    Some(vector) if vector.has_error_code() && frame.error_code != 0 => {
                        write!(f, " (error code {:#x})", frame.error_code)?;
                    }
                    _ => {}
                }
                write!(f, ", RIP {:#x}", frame.rip)
            }
        }
    }
}

/// What a page fault's error code says (Intel SDM vol. 3A, 4.7).
fn access(error_code: u64) -> &'static str {
    let is = |bit: u32| error_code >> bit & 1 == 1;
    match (is(0), is(1), is(4)) {
        (false, _, true) => "a fetch, nothing is mapped",
        (false, true, _) => "a write, nothing is mapped",
        (false, false, _) => "a read, nothing is mapped",
        (true, _, true) => "a fetch, not allowed there",
        (true, true, _) => "a write, not allowed there",
        (true, false, _) => "a read, not allowed there",
    }
}
