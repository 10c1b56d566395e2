//! `Backtrace`: who called whom, read from a guest's stack by frame pointers.
//!
//! Every function starts with `push rbp; mov rbp, rsp` (`-Cforce-frame-pointers`, `.cargo/config.toml`), so RBP heads a
//! list of frames: at RBP the caller's RBP, 8 bytes above the return address. `_start` clears RBP, which ends the list.
//! Three moments need more care: in a prologue the frame is not in the list yet; a function of assembly may have none;
//! and after a call to nowhere the return address is all there is.
//!
//! A stack may hold anything. The list may lead round in circles, to unmapped memory, or on for ever: each step is
//! checked, their number is bounded, and why the list ends is told.

use std::fmt;

use serde::Serialize;
use shared_abi::Gva;

use crate::debug::exception::address;
use crate::debug::instruction::{bytes_at, is_canonical};
use crate::debug::{CpuState, Frame, Symbols};
use crate::guest_space::{GuestBuffer, GuestSpace};
use crate::memory::GuestMemory;

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
        let of_library = self.file.as_ref().is_some_and(|file| file.starts_with("library/"));
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

/// Frames followed; deeper stacks are cut.
const MAX_CALLS: usize = 50_000;
/// Functions listed.
const MAX_FRAMES: usize = 64;
/// How often the list may lead downwards: to another stack, once for each exception that interrupted another.
const MAX_SWITCHES: u32 = 8;
/// The longest cycle of mutual recursion that is folded.
const MAX_CYCLE: usize = 4;

impl Backtrace {
    /// Unwinds the stack that `state` has.
    #[must_use]
    pub fn unwind(state: &CpuState, memory: &GuestMemory, symbols: &Symbols) -> Self {
        let (pcs, mut end) = Unwinder { state, space: state.space(memory), symbols }.run();
        let mut frames = Vec::new();
        let mut rest = pcs.as_slice();
        let mut is_first = true;
        while let [pc, behind @ ..] = rest {
            if frames.len() >= MAX_FRAMES {
                end = Some(format!("{} more calls are not shown", rest.len()));
                break;
            }
            frames.extend(functions(*pc, is_first, symbols));
            is_first = false;
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

    /// Without what a panic calls before it ends the guest: the first function is the one that panicked.
    #[must_use]
    pub fn without_panic(mut self) -> Self {
        let is_machinery = |frame: &BacktraceFrame| frame.function.as_deref().is_some_and(is_of_a_panic);
        if let Some(last) = self.frames.iter().take(MAX_PANIC_FRAMES).rposition(is_machinery) {
            self.frames.drain(..=last);
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

/// The functions that `pc` is in. A return address may be the first byte of the next function.
fn functions(pc: Gva, is_first: bool, symbols: &Symbols) -> Vec<BacktraceFrame> {
    let asked = if is_first { pc } else { Gva(pc.0.saturating_sub(1)) };
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

/// Follows the list of frames.
struct Unwinder<'a> {
    state: &'a CpuState,
    space: GuestSpace<'a>,
    symbols: &'a Symbols,
}

impl Unwinder<'_> {
    /// RIP and the return addresses above it, and why they end when it is not by RBP 0.
    fn run(&self) -> (Vec<Gva>, Option<String>) {
        let rip = self.state.rip();
        let mut pcs = vec![rip];
        pcs.extend(self.caller_outside_the_list());
        let mut rbp = self.state.general.rbp;
        let mut switches = 0;
        let end = loop {
            if rbp == 0 {
                break None;
            }
            if pcs.len() >= MAX_CALLS {
                break Some(format!("the stack is deeper than {} calls", thousands(MAX_CALLS as u64)));
            }
            let (next, pc) = match self.frame(rbp) {
                Ok(frame) => frame,
                Err(why) => break Some(why),
            };
            // A switched stack starts with a return address of 0.
            if pc.0 == 0 {
                break None;
            }
            if !self.is_code(pc) {
                break Some(format!("the return address {pc} at {:#x} is no code", rbp.wrapping_add(8)));
            }
            pcs.push(pc);
            if next <= rbp && next != 0 {
                switches += 1;
                if switches > MAX_SWITCHES {
                    break Some(format!("the frame at {rbp:#x} leads back to {next:#x}"));
                }
            }
            rbp = next;
        };
        (pcs, end)
    }

    /// The caller's RBP and the return address.
    fn frame(&self, rbp: u64) -> Result<(u64, Gva), String> {
        if !rbp.is_multiple_of(8) {
            return Err(format!("RBP {rbp:#x} is no multiple of 8"));
        }
        if !is_canonical(Gva(rbp)) {
            return Err(format!("RBP {rbp:#x} is not canonical"));
        }
        let words = (self.word(rbp), rbp.checked_add(8).and_then(|above| self.word(above)));
        let (Some(next), Some(pc)) = words else {
            return Err(format!("no RAM is mapped at RBP {rbp:#x}"));
        };
        Ok((next, Gva(pc)))
    }

    /// The caller of the function at RIP, when RBP is not that function's yet, or never will be.
    fn caller_outside_the_list(&self) -> Option<Gva> {
        const PUSH_RBP: [u8; 1] = [0x55];
        const MOV_RBP_RSP: [[u8; 3]; 2] = [[0x48, 0x89, 0xE5], [0x48, 0x8B, 0xEC]];
        const RET: [u8; 1] = [0xC3];
        let (rip, rsp) = (self.state.rip(), self.state.general.rsp);
        let code = bytes_at(&self.space, rip);
        let start = self.symbols.function_at(rip).map(|(_, offset)| Gva(rip.0.wrapping_sub(offset)));
        if !self.is_code(rip) {
            // Called through a pointer to nowhere: the call has pushed where it came from.
            return self.return_address(rsp, None);
        }
        if code.starts_with(&RET) || start == Some(rip) || (start.is_none() && code.starts_with(&PUSH_RBP)) {
            return self.return_address(rsp, start);
        }
        let entry = start.map(|start| bytes_at(&self.space, start)).unwrap_or_default();
        let is_pushed = MOV_RBP_RSP.iter().any(|mov| code.starts_with(mov));
        if is_pushed && (start.is_none() || start.is_some_and(|start| rip.0 - start.0 <= MAX_PROLOGUE)) {
            return self.return_address(rsp.wrapping_add(8), start);
        }
        if start.is_some() && !entry.starts_with(&PUSH_RBP) && !entry.starts_with(&ENDBR) {
            return self.caller_of_assembly(rsp, start);
        }
        None
    }

    /// A function without a frame keeps its return address not far above RSP.
    fn caller_of_assembly(&self, rsp: u64, start: Option<Gva>) -> Option<Gva> {
        (0..MAX_PUSHES).find_map(|pushes| {
            let at = rsp.wrapping_add(pushes * 8);
            // Where the caller's frame starts, the callee's things have ended.
            let is_callees = at < self.state.general.rbp || self.state.general.rbp == 0;
            is_callees.then(|| self.return_address(at, start)).flatten()
        })
    }

    /// The word at `at`, when it is a return address: of a call to `callee`, or of one that says no more than that it
    /// is one.
    fn return_address(&self, at: u64, callee: Option<Gva>) -> Option<Gva> {
        let pc = Gva(self.word(at)?);
        if !self.is_code(pc) {
            return None;
        }
        let before = self.space.read(GuestBuffer { gva: Gva(pc.0.checked_sub(8)?), size: 8 }, 8).ok()?;
        let is_direct = match *before.as_slice() {
            [_, _, _, 0xE8, a, b, c, d] => {
                let to = pc.0.wrapping_add_signed(i32::from_le_bytes([a, b, c, d]).into());
                callee.is_none_or(|callee| callee.0 == to)
            }
            _ => false,
        };
        // `ff /2`: a call through a register or memory, of 2 to 7 bytes (Intel SDM vol. 2A, CALL).
        let is_indirect = (1..=6).any(|back| {
            before.iter().rev().nth(back) == Some(&0xFF)
                && before.iter().rev().nth(back - 1).is_some_and(|modrm| modrm >> 3 & 7 == 2)
        });
        (is_direct || is_indirect).then_some(pc)
    }

    fn is_code(&self, pc: Gva) -> bool {
        self.space
            .translate(pc)
            .is_some_and(|mapping| mapping.executable && self.space.memory().check(mapping.gpa, 1).is_ok())
    }

    fn word(&self, gva: u64) -> Option<u64> {
        let bytes = self.space.read(GuestBuffer { gva: Gva(gva), size: 8 }, 8).ok()?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// How far behind a function's start RIP may be in its prologue: `endbr64; push rbp`.
const MAX_PROLOGUE: u64 = 5;
/// What a function may start with where indirect branches are tracked.
const ENDBR: [u8; 4] = [0xF3, 0x0F, 0x1E, 0xFA];
/// Words that a function without a frame may have pushed.
const MAX_PUSHES: u64 = 16;
