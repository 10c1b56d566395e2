//! `Unwinder`: follows the list of frames on a stack, and looks where a frame is not in it.

use shared_abi::Gva;

use super::thousands;
use crate::boot::guest_map::GuestMap;
use crate::boot::region::RegionKind;
use crate::debug::instruction::{bytes_at, is_canonical};
use crate::debug::{CpuState, Symbols};
use crate::guest_space::{GuestBuffer, GuestSpace};
use crate::memory::GuestMemory;

/// Frames followed; deeper stacks are cut.
const MAX_CALLS: usize = 50_000;
/// How often the list may lead downwards: to another stack, once for each exception that interrupted another.
const MAX_SWITCHES: u32 = 8;
/// Places of exceptions that are told apart from return addresses.
const MAX_INTERRUPTED: usize = 64;

/// The return addresses that lie on the stack of the start, the lowest first.
pub(super) fn return_addresses(map: &GuestMap, memory: &GuestMemory, symbols: &Symbols) -> Vec<Gva> {
    let space = GuestSpace::new(memory, map.first_tables());
    let state = CpuState::default();
    let unwinder = Unwinder { state: &state, space, symbols };
    let image = map.image();
    let stack = map.regions().iter().find(|region| region.kind == RegionKind::Stack);
    let places = stack.map(|stack| (stack.start.0..stack.end.0).step_by(8)).into_iter().flatten();
    let may_be = |at: &u64| unwinder.word(*at).is_some_and(|word| image.start <= word && word < image.end);
    places.filter(may_be).filter_map(|at| unwinder.return_address(at, None)).take(MAX_SCANNED).collect()
}

/// Return addresses that are looked for on a stack nobody knows the end of.
const MAX_SCANNED: usize = 32;

/// Follows the list of frames.
pub(super) struct Unwinder<'a> {
    pub(super) state: &'a CpuState,
    pub(super) space: GuestSpace<'a>,
    pub(super) symbols: &'a Symbols,
}

impl Unwinder<'_> {
    /// RIP and the return addresses above it; which of them are no return addresses but where an exception came; and
    /// why they end when it is not by RBP 0.
    pub(super) fn run(&self) -> (Vec<Gva>, Vec<usize>, Option<String>) {
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
            if interrupted.len() < MAX_INTERRUPTED && self.is_of_an_exception(rbp.wrapping_add(8)) {
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
