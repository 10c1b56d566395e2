//! Console, log and marks: what the guest says, and what it is told.

use shared_abi::HypercallError;
use shared_abi::hypercall::{LogLevel, MAX_LOG_TARGET, MAX_LOG_TEXT, MAX_MARK_NAME};

use super::{Context, Outcome};
use crate::error::Result;
use crate::guest_space::{Access, GuestBuffer};
use crate::hypercall::Answer;
use crate::input::Typed;
use crate::log::LogRecord;
use crate::machine::Machine;
use crate::next::Next;
use crate::observe::Mark;
use crate::output::Writer;

/// At most so much is read at once: more than a terminal's line, and less than worth a second thought.
const MAX_READ: u64 = 64 << 10;

/// Writes text straight from guest memory to the console's sink: no copy.
pub(super) fn write(context: &Context<'_>, text: GuestBuffer) -> Result<Outcome> {
    let space = context.space()?;
    let pieces = match space.checked_pieces(text, Access::Read) {
        Ok(pieces) => pieces,
        Err(error) => return Ok(Outcome::Answer(Err(error))),
    };
    let mut console = context.machine.console();
    for piece in pieces {
        // Another vCPU may have changed the tables since the check.
        let Ok(piece) = piece else { return Ok(Outcome::Answer(Err(HypercallError::BadAddress))) };
        let Ok(slice) = space.memory().slice(piece.gpa, piece.size) else {
            return Ok(Outcome::Answer(Err(HypercallError::BadAddress)));
        };
        match console.write_guest(&slice, Writer::Vcpu)? {
            Next::Resume | Next::Stand => {}
            Next::Stop(reason) => return Ok(Outcome::Stop(reason)),
        }
    }
    Ok(Outcome::Answer(Ok(text.size)))
}

/// Reads what was typed. What the guest printed is shown first: it may be the question.
pub(super) fn read(context: &Context<'_>, buffer: GuestBuffer, wait: bool) -> Result<Outcome> {
    let space = context.space()?;
    let buffer = GuestBuffer { size: buffer.size.min(MAX_READ), ..buffer };
    if let Err(error) = space.check(buffer, Access::Write) {
        return Ok(Outcome::Answer(Err(error)));
    }
    context.machine.flush_console()?;
    let Some(mut input) = context.machine.input(wait) else {
        // Another vCPU waits for what is typed, so there is nothing yet.
        context.machine.tell_next_arrival()?;
        return Ok(Outcome::Answer(Err(HypercallError::WouldBlock)));
    };
    let mut bytes = vec![0; buffer.size as usize];
    let answer = match input.read(&mut bytes, wait, || cut_short(context.machine))? {
        Typed::Bytes(count) => {
            let typed = bytes.get(..count).unwrap_or_default();
            space.write(buffer.gva, typed).map(|()| count as u64)
        }
        Typed::NothingYet => {
            context.machine.tell_next_arrival()?;
            Err(HypercallError::WouldBlock)
        }
        Typed::Stopped(reason) => return Ok(Outcome::Stop(reason)),
    };
    Ok(Outcome::Answer(answer))
}

/// What ends a wait for input: a request to stop, or another vCPU's end, after which the guest may go on and ask again.
fn cut_short(machine: &Machine) -> Option<Typed> {
    let recalled = || machine.stop.is_recalled().then_some(Typed::NothingYet);
    machine.stop_reason().map(Typed::Stopped).or_else(recalled)
}

/// Tells the observer that a span begins.
pub(super) fn mark_begin(context: &mut Context<'_>, name: GuestBuffer) -> Result<Answer> {
    let name = context.space()?.read_text(name, MAX_MARK_NAME);
    Ok(name.map(|name| {
        context.observer.on_mark(&Mark::Begin(name));
        0
    }))
}

/// Hands a record to the host's log, and to the observer.
pub(super) fn log(
    context: &mut Context<'_>,
    level: LogLevel,
    target: GuestBuffer,
    text: GuestBuffer,
) -> Result<Answer> {
    let space = context.space()?;
    let record = space.read_text(target, MAX_LOG_TARGET).and_then(|target| {
        let text = space.read_text(text, MAX_LOG_TEXT)?;
        Ok(LogRecord { level, target, text })
    });
    Ok(record.map(|record| {
        context.machine.log(&record);
        context.observer.on_log(&record);
        0
    }))
}
