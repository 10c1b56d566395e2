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

/// Follows the list of frames.
struct Unwinder<'a> {
    state: &'a CpuState,
    space: GuestSpace<'a>,
    symbols: &'a Symbols,
}

impl Unwinder<'_> {
    /// RIP and the return addresses above it; which of them are no return addresses but where an exception came; and
    /// why they end when it is not by RBP 0.
    fn run(&self) -> (Vec<Gva>, Vec<usize>, Option<String>) {
        let rip = self.state.rip();
        let mut pcs = vec![rip];
        let mut interrupted = Vec::new();
        if !self.is_code(rip) && self.is_of_an_exception(self.state.general.rsp) {
            interrupted.push(pcs.len());
        }
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
            if interrupted.len() < MAX_FRAMES && self.is_of_an_exception(rbp.wrapping_add(8)) {
                interrupted.push(pcs.len());
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
        (pcs, interrupted, end)
    }

    /// Whether what lies at `at` is what the CPU pushes for an exception: RIP, CS, RFLAGS (Intel SDM vol. 3A, 6.14.2).
    fn is_of_an_exception(&self, at: u64) -> bool {
        /// Bit 1 is always set, bits 3, 5 and 15 and those from 22 on never (Intel SDM vol. 1, figure 3-8).
        const ALWAYS: u64 = 1 << 1;
        const NEVER: u64 = !0x3F_FFFF | 1 << 3 | 1 << 5 | 1 << 15;
        let selector = u64::from(self.state.special.cs.selector);
        let is_flags = |word: u64| word & (ALWAYS | NEVER) == ALWAYS;
        selector != 0
            && self.word(at.wrapping_add(8)) == Some(selector)
            && self.word(at.wrapping_add(16)).is_some_and(is_flags)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared_abi::Gpa;

    use super::*;
    use crate::config::Backing;

    /// A guest without paging, whose code is `nop` everywhere below the stack.
    fn guest(rbp: u64, words: &[(u64, u64)]) -> (CpuState, GuestMemory) {
        let memory = GuestMemory::allocate("2M".parse().expect("a size"), Backing::default()).expect("RAM");
        for (gpa, word) in words {
            memory.write(Gpa(*gpa), &word.to_le_bytes()).expect("RAM");
        }
        let mut state = CpuState::default();
        state.general.rip = 0x1000;
        state.general.rbp = rbp;
        state.general.rsp = 0x8000;
        (state, memory)
    }

    fn unwind((state, memory): &(CpuState, GuestMemory)) -> Backtrace {
        Backtrace::unwind(state, memory, &Symbols::none("made up".to_owned()))
    }

    fn pcs(backtrace: &Backtrace) -> Vec<u64> {
        backtrace.frames.iter().map(|frame| frame.pc.0).collect()
    }

    #[test]
    fn frames_lead_to_the_start_where_rbp_is_zero() {
        let guest = guest(0x8000, &[(0x8000, 0x9000), (0x8008, 0x1100), (0x9000, 0), (0x9008, 0x1200)]);
        let backtrace = unwind(&guest);
        assert_eq!((pcs(&backtrace), backtrace.end), (vec![0x1000, 0x1100, 0x1200], None));
    }

    #[test]
    fn every_broken_list_ends_with_its_reason() {
        for (rbp, words, reason) in [
            (0x8004, &[][..], "RBP 0x8004 is no multiple of 8"),
            (1 << 47, &[], "RBP 0x800000000000 is not canonical"),
            (0x7000_0000, &[], "no RAM is mapped at RBP 0x70000000"),
            (u64::MAX - 7, &[], "no RAM is mapped"),
            (0x8000, &[(0x8008, 0x7000_0000)], "the return address 0x70000000 at 0x8008 is no code"),
            (0x8000, &[(0x8000, 0x8000), (0x8008, 0x1100)], "the frame at 0x8000 leads back to 0x8000"),
            (0x8000, &[(0x8000, 1 << 40), (0x8008, 0x1100)], "no RAM is mapped at RBP 0x10000000000"),
        ] {
            let end = unwind(&guest(rbp, words)).end.unwrap_or_default();
            assert!(end.contains(reason), "{end:?} is not {reason:?}");
        }
    }

    #[test]
    fn recursion_is_folded() {
        let mut words: Vec<_> =
            (0..1000).flat_map(|n| [(0x8000 + n * 16, 0x8010 + n * 16), (0x8008 + n * 16, 0x1100)]).collect();
        words.extend([(0x8000 + 16000, 0), (0x8008 + 16000, 0x1200)]);
        let backtrace = unwind(&guest(0x8000, &words));
        assert_eq!(pcs(&backtrace), [0x1000, 0x1100, 0x1200]);
        assert_eq!(backtrace.frames[1].repeated, 999);
        assert!(backtrace.to_string().contains("… 999 more calls of the same"), "{backtrace}");
        assert_eq!(thousands(1_234_567), "1,234,567");
    }

    #[test]
    fn mutual_recursion_is_folded_too() {
        let pc = |n: u64| 0x1100 + n % 2 * 0x100;
        let mut words: Vec<_> =
            (0..100).flat_map(|n| [(0x8000 + n * 16, 0x8010 + n * 16), (0x8008 + n * 16, pc(n))]).collect();
        words.push((0x8000 + 1600, 0));
        let backtrace = unwind(&guest(0x8000, &words));
        assert_eq!(pcs(&backtrace), [0x1000, 0x1100, 0x1200]);
        assert_eq!(backtrace.frames[2].repeated, 98);
    }

    #[test]
    fn a_prologue_and_a_call_to_nowhere_keep_their_caller() {
        // `call` at 0x10FB ends at 0x1100 and leads to 0x1000.
        let call = (0x10F8, u64::from_le_bytes([0x90, 0x90, 0x90, 0xE8, 0x00, 0xFF, 0xFF, 0xFF]));
        let frames = [(0x8000, 0x1100), (0x8008, 0x1100), (0x9000, 0), (0x9008, 0x1200), call];
        let push_rbp = guest(0x9000, &[&frames[..], &[(0x1000, 0x55)]].concat());
        assert_eq!(pcs(&unwind(&push_rbp)), [0x1000, 0x1100, 0x1200]);
        let mov_rbp_rsp = guest(0x9000, &[&frames[1..], &[(0x1000, 0xE5_8948)]].concat());
        assert_eq!(pcs(&unwind(&mov_rbp_rsp)), [0x1000, 0x1100, 0x1200]);

        let mut nowhere = guest(0x9000, &[frames[0], (0x9008, 0x1200), (0x10F8, 0xD0FF << 48)]);
        nowhere.0.general.rip = 0x7000_0000;
        assert_eq!(pcs(&unwind(&nowhere)), [0x7000_0000, 0x1100, 0x1200]);
    }

    proptest! {
        #[test]
        fn no_stack_is_too_much(words in proptest::collection::vec((0u64..0x1000, 0u64..0x9000), 0..200), rbp in 0u64..0x9000) {
            let words: Vec<_> = words.iter().map(|(at, word)| (0x1000 + at * 8, *word)).collect();
            let backtrace = unwind(&guest(rbp & !7, &words));
            prop_assert!(backtrace.frames.len() <= MAX_FRAMES);
            prop_assert!(backtrace.to_string().len() < 16 << 10);
        }
    }
}
