//! What a guest says before it ends by its own mistake: the words of a panic, the registers of an exception.
//!
//! Both come from a kernel that is broken by its own account, so both may hold anything. Guest side:
//! `guest-kernel/src/panic.rs` and `guest-kernel/src/exceptions.rs`.

use serde::{Deserialize, Serialize};
use shared_abi::define::Shared;
use shared_abi::{ExceptionFrame, Gva};

use super::{Context, Outcome, console};
use crate::error::Result;
use crate::guest_space::GuestBuffer;
use crate::next::StopReason;

/// The words of a guest that panicked, as far as they are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanicText {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl PanicText {
    /// The most that is kept, in bytes. The console shows the rest, too.
    pub const MAX: usize = 4096;

    /// Whether it is one that a guest can have left.
    pub(crate) fn is_valid(&self) -> bool {
        self.bytes.len() <= Self::MAX
    }

    /// Bytes that still fit.
    fn room(&self) -> usize {
        Self::MAX.saturating_sub(self.bytes.len())
    }

    fn add(&mut self, bytes: &[u8], total: u64) {
        let kept = bytes.get(..bytes.len().min(self.room())).unwrap_or_default();
        self.is_cut |= (kept.len() as u64) < total;
        self.bytes.extend_from_slice(kept);
    }

    /// The words, with a mark where they were cut; `None` when the guest has not panicked. They start anew.
    pub fn take(&mut self) -> Option<String> {
        let Self { bytes, is_cut } = std::mem::take(self);
        let text = String::from_utf8_lossy(&bytes);
        let mark = if is_cut { "…" } else { "" };
        (!bytes.is_empty()).then(|| format!("{}{mark}", text.trim_end_matches('\n')))
    }
}

/// Shows the last words and keeps them for the report.
pub(super) fn panic(context: &Context<'_>, text: GuestBuffer) -> Result<Outcome> {
    let room = context.machine.panic_text().room() as u64;
    let kept = match context.space()?.read(GuestBuffer { size: text.size.min(room), ..text }, room) {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Outcome::Answer(Err(error))),
    };
    let outcome = console::write(context, text)?;
    if !matches!(outcome, Outcome::Answer(Err(_))) {
        context.machine.panic_text().add(&kept, text.size);
    }
    Ok(outcome)
}

/// Ends the run with the frame that the guest shows.
pub(super) fn exception(context: &Context<'_>, frame_gva: Gva) -> Result<Outcome> {
    const SIZE: u64 = size_of::<ExceptionFrame>() as u64;
    let frame = match context.space()?.read(GuestBuffer { gva: frame_gva, size: SIZE }, SIZE) {
        Ok(bytes) => frame(&bytes),
        Err(error) => return Ok(Outcome::Answer(Err(error))),
    };
    Ok(Outcome::Stop(StopReason::Exception(Box::new(frame))))
}

fn frame(bytes: &[u8]) -> ExceptionFrame {
    let mut words = bytes.chunks_exact(8).filter_map(|word| word.try_into().ok()).map(u64::from_le_bytes);
    ExceptionFrame::read(&mut || words.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_memory() {
        let mut next = 0;
        let written = ExceptionFrame::read(&mut || {
            next += 1;
            next
        });
        let mut bytes = Vec::new();
        written.write(&mut |word| bytes.extend(word.to_le_bytes()));
        assert_eq!(bytes.len(), size_of::<ExceptionFrame>());
        assert_eq!((written.cr2, written.ss, frame(&bytes)), (1, next, written));
    }

    #[test]
    fn words_are_kept_up_to_their_limit_and_marked_when_cut() {
        let mut text = PanicText::default();
        assert_eq!(text.take(), None);
        text.add(b"one ", 4);
        text.add(b"two\n", 4);
        assert_eq!(text.take().as_deref(), Some("one two"));

        text.add(&[b'x'; PanicText::MAX - 1], PanicText::MAX as u64 - 1);
        text.add("ä".as_bytes(), 2);
        let taken = text.take().expect("a text");
        assert!(taken.ends_with("x\u{FFFD}…") && taken.len() <= PanicText::MAX + 6, "{}", taken.len());
    }
}
