//! `Backtrace`: who called whom, read from a guest's stack by frame pointers.
//!
//! Every function starts with `push rbp; mov rbp, rsp` (`-Cforce-frame-pointers`, `.cargo/config.toml`), so RBP heads a
//! list of frames: at RBP the caller's RBP, 8 bytes above the return address. `_start` clears RBP, which ends the list.
//! Three moments need more care: in a prologue the frame is not in the list yet; a function of assembly may have none;
//! and after a call to nowhere the return address is all there is.
//!
//! A stack may hold anything. The list may lead round in circles, to unmapped memory, or on for ever: each step is
//! checked, their number is bounded, and why the list ends is told.

mod unwinder;

#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;
use shared_abi::Gva;

use crate::boot::guest_map::GuestMap;
use crate::debug::exception::address;
use crate::debug::instruction;
use crate::debug::{CpuState, Frame, Symbols};
use crate::memory::GuestMemory;
use unwinder::Unwinder;

/// Who called whom, the innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Backtrace {
    /// The functions, those that were inlined too.
    pub frames: Vec<BacktraceFrame>,
    /// Why there are no more, when that is not the start of the guest.
    pub end: Option<String>,
}

/// A function of a backtrace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BacktraceFrame {
    /// Where the function was: the instruction itself in the first, a return address in the others.
    #[serde(serialize_with = "address")]
    pub pc: Gva,
    /// The function's name.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line.
    pub line: Option<u32>,
    /// Whether its code was copied into the next one's.
    pub is_inlined: bool,
    /// How many more calls by the same place follow, which are not listed.
    pub repeated: u64,
}

impl BacktraceFrame {
    /// `file:line`, when both are known.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        Some(format!("{}:{}", self.file.as_ref()?, self.line?))
    }

    /// Whether the function is the user's own, not of Rust's library: what a user can change.
    #[must_use]
    pub fn is_own(&self) -> bool {
        let of_library = match &self.file {
            Some(file) => file.starts_with("library/"),
            None => self.function.as_deref().is_some_and(|name| {
                ["core::", "alloc::", "<core::", "<alloc::"].iter().any(|start| name.starts_with(start))
            }),
        };
        let intrinsic = self.function.as_deref().is_some_and(|name| {
            name.starts_with("compiler_builtins::")
                || ["memset", "memcpy", "memmove", "memcmp"].contains(&name)
        });
        self.function.is_some() && !of_library && !intrinsic
    }
}

impl fmt::Display for BacktraceFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.function {
            Some(function) => write!(f, "{function}")?,
            None => write!(f, "{}", self.pc)?,
        }
        self.place().map_or(Ok(()), |place| write!(f, " at {place}"))
    }
}

/// Functions listed.
const MAX_FRAMES: usize = 64;
/// The longest cycle of mutual recursion that is folded.
const MAX_CYCLE: usize = 4;

impl Backtrace {
    /// Unwinds the stack that `state` has.
    #[must_use]
    pub fn unwind(state: &CpuState, memory: &GuestMemory, symbols: &Symbols) -> Self {
        if instruction::bits(&state.special) != 64 {
            // Nothing is agreed on about frames of 16-bit and 32-bit code.
            let frames = functions(instruction::linear_rip(state), true, symbols);
            return Self { frames, end: None };
        }
        let (pcs, interrupted, mut end) = Unwinder { state, space: state.space(memory), symbols }.run();
        let mut frames = Vec::new();
        let mut rest = pcs.as_slice();
        while let [pc, behind @ ..] = rest {
            if frames.len() >= MAX_FRAMES {
                end = Some(format!("{} more calls are not shown", rest.len()));
                break;
            }
            let number = pcs.len() - rest.len();
            let is_next_to_run = number == 0 || interrupted.contains(&number);
            frames.extend(functions(*pc, is_next_to_run, symbols));
            rest = behind;
            if let Some((cycle, repeated)) = cycle_before(&pcs, rest) {
                if let Some(last) = frames.last_mut() {
                    last.repeated = repeated * cycle as u64;
                }
                rest = rest.get(repeated as usize * cycle..).unwrap_or_default();
            }
        }
        Self { frames, end }
    }

    /// The return addresses that lie on the stack of the start, when no register tells where it ended.
    #[must_use]
    pub fn scan(map: &GuestMap, memory: &GuestMemory, symbols: &Symbols) -> Self {
        let pcs = unwinder::return_addresses(map, memory, symbols);
        let mut frames: Vec<_> = pcs.iter().flat_map(|pc| functions(*pc, false, symbols)).collect();
        frames.truncate(MAX_FRAMES);
        let end = "return addresses that lie on the stack; some may be older than the death".to_owned();
        Self { frames, end: Some(end) }
    }

    /// Without what a panic calls before it ends the guest: the first function is the one that panicked.
    #[must_use]
    pub fn without_panic(mut self) -> Self {
        let is_machinery = |frame: &BacktraceFrame| frame.function.as_deref().is_some_and(is_of_a_panic);
        // The first run of them: below it may be a panic that this one interrupted.
        if let Some(first) = self.frames.iter().take(MAX_PANIC_FRAMES).position(is_machinery) {
            let run = self.frames.iter().skip(first).take_while(|frame| is_machinery(frame)).count();
            self.frames.drain(..first + run);
            let own = self.frames.iter().position(BacktraceFrame::is_own);
            self.frames.drain(..own.unwrap_or_default());
        }
        self
    }

    /// The first function that is the user's own.
    #[must_use]
    pub fn culprit(&self) -> Option<&BacktraceFrame> {
        self.frames.iter().find(|frame| frame.is_own()).or_else(|| self.frames.first())
    }
}

/// More frames than a panic has of its own.
const MAX_PANIC_FRAMES: usize = 40;

fn is_of_a_panic(function: &str) -> bool {
    const PARTS: [&str; 6] = [
        "core::panicking::",
        "rust_begin_unwind",
        "expect_failed",
        "unwrap_failed",
        "slice_error_fail",
        "guest_kernel::panic::",
    ];
    PARTS.iter().any(|part| function.contains(part))
        || function.starts_with("core::slice::index::") && function.contains("_fail")
}

impl fmt::Display for Backtrace {
    /// A line a function, numbered by call; without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (number, frame) in self.frames.iter().enumerate() {
            write!(f, "{separator}  {number:>2}  {frame}")?;
            if frame.is_inlined {
                f.write_str(" (inlined)")?;
            }
            separator = "\n";
            if frame.repeated > 0 {
                write!(f, "\n      … {} more calls of the same", thousands(frame.repeated))?;
            }
        }
        match &self.end {
            Some(end) => write!(f, "{separator}      ({end})"),
            None => Ok(()),
        }
    }
}

/// `1,000`
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The functions that `pc` is in. A return address is behind its call, and may be the first byte of the next function.
fn functions(pc: Gva, is_next_to_run: bool, symbols: &Symbols) -> Vec<BacktraceFrame> {
    let asked = if is_next_to_run { pc } else { Gva(pc.0.saturating_sub(1)) };
    let mut found = symbols.frames(asked);
    if found.is_empty() {
        found.push(Frame::default());
    }
    let frame = |Frame { function, file, line, is_inlined, .. }| BacktraceFrame {
        pc,
        function,
        file,
        line,
        is_inlined,
        repeated: 0,
    };
    found.into_iter().map(frame).collect()
}

/// How long a cycle of calls ends just before `rest`, and how often it comes again in `rest`.
fn cycle_before(pcs: &[Gva], rest: &[Gva]) -> Option<(usize, u64)> {
    let done = pcs.len() - rest.len();
    (1..=MAX_CYCLE.min(done)).find_map(|cycle| {
        let pattern = pcs.get(done - cycle..done)?;
        let repeated = rest.chunks_exact(cycle).take_while(|chunk| *chunk == pattern).count() as u64;
        // Twice the same is still easier to read than a sentence about it.
        (repeated > 2).then_some((cycle, repeated))
    })
}
