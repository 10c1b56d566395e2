//! The kernel's answer to every system call: one match, one function each.
//!
//! A program may ask for anything, by any numbers. What is wrong with that is an answer, [`SystemError`]; a call that
//! cannot be answered yet is a [`Wait`], and is made again. The program's side is `user-library/src/calls.rs`.

use user_library::abi::{Answer, SystemCall, SystemError};

use super::end::Wait;
use super::memory::MemoryError;
use super::pipe::Transfer;
use super::process::{Handle, Process};
use super::slice::UserSlice;
use crate::hypercall::{self, HypercallError};
use crate::time::clock;

/// What becomes of a call.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The program goes on with this.
    Answer(Answer),
    /// The program goes on with 0, after the others.
    Yield,
    /// The call is made again when this may have come.
    Wait(Wait),
    /// There is no program any more.
    Exit(u64),
}

/// Answers the call `number` of a process.
pub(super) fn handle(process: &mut Process, number: u64, [first, second, third]: [u64; 3]) -> Outcome {
    let Some(call) = SystemCall::from_number(number) else {
        return Outcome::Answer(Err(SystemError::NoSuchCall));
    };
    let outcome = match call {
        SystemCall::Exit => Ok(Outcome::Exit(first)),
        SystemCall::Write => write(process, first, second, third),
        SystemCall::Read => read(process, first, second, third),
        SystemCall::Close => close(process, first),
        SystemCall::Yield => Ok(Outcome::Yield),
        SystemCall::Sleep => Ok(sleep(process, first)),
        SystemCall::ProcessId => Ok(Outcome::Answer(Ok(process.id()))),
        SystemCall::Time => Ok(Outcome::Answer(Ok(clock::now_ns()))),
        SystemCall::Grow => grow(process, first),
        SystemCall::Argument => Ok(Outcome::Answer(Ok(process.argument()))),
    };
    outcome.unwrap_or_else(|error| Outcome::Answer(Err(error)))
}

type Result = core::result::Result<Outcome, SystemError>;

fn write(process: &mut Process, handle: u64, address: u64, size: u64) -> Result {
    let (memory, handles) = process.parts();
    let slice = UserSlice::new(address, size)?;
    match find(handles, handle)? {
        Handle::Console => {
            let mut count = 0;
            for piece in slice.readable(memory)?.into_iter().filter(|piece| !piece.is_empty()) {
                // A host that shows nothing more ends the run; the program has written all the same.
                let _ = hypercall::console_write(piece);
                count += piece.len();
            }
            Ok(Outcome::Answer(Ok(count as u64)))
        }
        Handle::Sender(sender) => {
            let [first, second] = slice.readable(memory)?;
            let sent = transfer(sender.send(first)?, first.len(), || sender.send(second));
            sent.map(Outcome::from)
        }
        Handle::Receiver(_) | Handle::Closed => Err(SystemError::BadHandle),
    }
}

fn read(process: &mut Process, handle: u64, address: u64, size: u64) -> Result {
    let read_console =
        if process.is_patient() { hypercall::console_read } else { hypercall::console_try_read };
    let (memory, handles) = process.parts();
    let slice = UserSlice::new(address, size)?;
    match find(handles, handle)? {
        // Bytes in the first page are as good as any: a reader takes what it gets.
        Handle::Console => match read_console(slice.writable(memory)?[0]) {
            Ok(count) => Ok(Outcome::Answer(Ok(count as u64))),
            Err(HypercallError::WouldBlock) => Ok(Outcome::Wait(Wait::Typing)),
            Err(_) => Err(SystemError::BadHandle),
        },
        Handle::Receiver(receiver) => {
            let [first, second] = slice.writable(memory)?;
            let received = transfer(receiver.receive(first), first.len(), || Ok(receiver.receive(second)));
            received.map(Outcome::from)
        }
        Handle::Sender(_) | Handle::Closed => Err(SystemError::BadHandle),
    }
}

/// Goes on with the second piece of a transfer when the first was moved whole.
fn transfer(
    first: Transfer,
    size: usize,
    second: impl FnOnce() -> core::result::Result<Transfer, SystemError>,
) -> core::result::Result<Transfer, SystemError> {
    match first {
        Transfer::Done(count) if count == size && size > 0 => match second()? {
            Transfer::Done(more) => Ok(Transfer::Done(count + more)),
            Transfer::MustWait(_) => Ok(first),
        },
        _ => Ok(first),
    }
}

impl From<Transfer> for Outcome {
    fn from(transfer: Transfer) -> Self {
        match transfer {
            Transfer::Done(count) => Self::Answer(Ok(count as u64)),
            Transfer::MustWait(wait) => Self::Wait(wait),
        }
    }
}

fn close(process: &mut Process, handle: u64) -> Result {
    let (_, handles) = process.parts();
    *find(handles, handle)? = Handle::Closed;
    Ok(Outcome::Answer(Ok(0)))
}

/// Waits from the first time the call is made; it is made again until then.
fn sleep(process: &mut Process, nanoseconds: u64) -> Outcome {
    let now = clock::now_ns();
    let until = process.wakes_at(|| now.saturating_add(nanoseconds));
    if now >= until { Outcome::Answer(Ok(0)) } else { Outcome::Wait(Wait::Until(until)) }
}

fn grow(process: &mut Process, size: u64) -> Result {
    let (memory, _) = process.parts();
    match memory.grow(size) {
        Ok(start) => Ok(Outcome::Answer(Ok(start.0))),
        Err(MemoryError::TooMuch | MemoryError::OutOfFrames) => Err(SystemError::OutOfMemory),
        Err(MemoryError::Map(_)) => Err(SystemError::BadArgument),
    }
}

/// What a handle stands for.
fn find(handles: &mut [Handle], handle: u64) -> core::result::Result<&mut Handle, SystemError> {
    let found = usize::try_from(handle).ok().and_then(|place| handles.get_mut(place));
    found.filter(|found| !matches!(found, Handle::Closed)).ok_or(SystemError::BadHandle)
}
