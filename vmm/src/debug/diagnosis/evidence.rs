//! `Evidence`: what a guest leaves behind, and how a diagnosis is made of it.

use shared_abi::{ExceptionFrame, Gva, exit_code};
use x86_64::registers::control::Cr0Flags;

use super::{Diagnosis, Registers, emulation, stopped};
use crate::boot::guest_map::GuestMap;
use crate::debug::autopsy::{self, Chain, End, Finding, Scene};
use crate::debug::backtrace::Backtrace;
use crate::debug::exception::{Exception, mnemonic, page_fault, vector};
use crate::debug::landmark::Landmarks;
use crate::debug::mode::{self, Mode};
use crate::debug::{CpuState, Detail, Symbols};
use crate::guest_space::GuestSpace;
use crate::memory::GuestMemory;
use crate::next::StopReason;
use crate::page_walk::PageTables;
use crate::report::RunReport;

/// What a guest leaves behind.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// How its run ended.
    pub report: &'a RunReport,
    /// Its registers.
    pub state: &'a CpuState,
    /// Its memory.
    pub memory: &'a GuestMemory,
    /// What was put where at start.
    pub map: &'a GuestMap,
    /// What its image tells about addresses.
    pub symbols: &'a Symbols,
    /// Whether the registers are those of a repeated run, where CR2 is older than the death.
    pub is_repeated: bool,
}

impl Evidence<'_> {
    /// Finds out why the guest ended.
    #[must_use]
    pub fn diagnose(&self) -> Diagnosis {
        let mut diagnosis = match &self.report.stop {
            StopReason::TripleFault => self.triple_fault(),
            StopReason::Exception(frame) => self.exception(frame),
            StopReason::EmulationFailure(bytes) => emulation::diagnose(self, bytes.as_slice()),
            StopReason::Exited { code: exit_code::PANICKED } => self.panic(),
            _ => stopped::diagnose(self),
        };
        self.name_culprit(&mut diagnosis);
        diagnosis.facts.extend(self.user_mode());
        self.tell_mode(&mut diagnosis);
        diagnosis.facts.extend(self.report.earlier_panic());
        if !matches!(self.symbols.detail(), Detail::Lines) {
            diagnosis.remarks.push(self.symbols.detail().to_string());
        }
        diagnosis
    }

    /// What can be told of a triple fault when nothing is left of the registers, and the run could not be repeated.
    #[must_use]
    pub fn diagnose_lost(&self, why: &str) -> Diagnosis {
        Diagnosis {
            died: true,
            cause: "a triple fault".to_owned(),
            backtrace: Backtrace::scan(self.map, self.memory, self.symbols),
            hint: Some(
                "load an IDT whose handlers report: then the guest itself tells what it dies of".to_owned(),
            ),
            remarks: vec![
                "this host's KVM loses the registers of a guest that dies".to_owned(),
                why.to_owned(),
            ],
            ..Diagnosis::default()
        }
    }

    /// The state with which the guest left, as far as its stop alone tells; `state` is where it was.
    pub(super) fn plain(&self, state: &CpuState) -> Diagnosis {
        let told = self.report.stop.to_string();
        let cause = told.strip_prefix("the guest died: ");
        Diagnosis {
            died: cause.is_some(),
            cause: cause.unwrap_or(&told).to_owned(),
            registers: Some(Registers::of(state)),
            backtrace: Backtrace::unwind(state, self.memory, self.symbols),
            ..Diagnosis::default()
        }
    }

    /// The guest's memory as it saw it last.
    pub(super) fn space(&self) -> GuestSpace<'_> {
        self.state.space(self.memory)
    }

    pub(super) fn landmarks(&self) -> Landmarks<'_> {
        Landmarks { map: self.map, memory: self.memory, symbols: self.symbols }
    }

    /// That the guest was in ring 3, and whose code that was: a kernel runs programs there, of which the image tells nothing.
    fn user_mode(&self) -> Option<String> {
        let interrupted = match &self.report.stop {
            StopReason::Exception(frame) => CpuState::interrupted(frame, self.state),
            _ => *self.state,
        };
        let (cs, rip) = (interrupted.special.cs, interrupted.rip());
        let is_protected = interrupted.special.cr0 & Cr0Flags::PROTECTED_MODE_ENABLE.bits() != 0;
        if !is_protected || cs.dpl != 3 || Mode::of(&interrupted).is_8086() {
            return None;
        }
        let image = self.map.image();
        let whose = match (image.start..image.end).contains(&rip.0) {
            true => "it had come to the kernel's own code",
            false => "RIP is outside of the image, in a program that it says nothing about",
        };
        Some(format!("the CPU was in user mode (ring 3, CS {:#x}): {whose}", cs.selector))
    }

    /// Where the guest was and in which segments, unless it was at 64-bit code, where an address is a number.
    fn tell_mode(&self, diagnosis: &mut Diagnosis) {
        let mode = Mode::of(self.state);
        if mode == Mode::Long || self.state.is_reset() {
            return;
        }
        diagnosis.facts.push(format!("the CPU is in {mode}, at {}", mode::place(self.state)));
        if !mode.is_8086() {
            diagnosis.facts.extend(mode::segments(&self.state.special));
        }
    }

    fn name_culprit(&self, diagnosis: &mut Diagnosis) {
        if let Some(culprit) = diagnosis.backtrace.culprit() {
            diagnosis.function = culprit.function.clone();
            diagnosis.file = culprit.file.clone();
            diagnosis.line = culprit.line;
        }
    }

    fn triple_fault(&self) -> Diagnosis {
        let scene = Scene { state: self.state, memory: self.memory };
        let mut diagnosis = Diagnosis { died: true, ..self.plain(self.state) };
        diagnosis.instruction = self.instruction(self.state);
        match autopsy::examine(&scene) {
            Finding::Chain(chain) => {
                self.tell_exception(&mut diagnosis, &chain.first().exception, &chain.first().why, self.state);
                self.tell_chain(&mut diagnosis, chain);
            }
            Finding::NoException(why) => {
                diagnosis.cause = "a triple fault".to_owned();
                diagnosis.remarks.push(why);
            }
            Finding::NotFollowed(why) => {
                diagnosis.cause = "a triple fault".to_owned();
                diagnosis.remarks.push(format!("{why}, and its exceptions are not followed there"));
            }
        }
        diagnosis
    }

    fn tell_chain(&self, diagnosis: &mut Diagnosis, chain: Chain) {
        if let End::Handled(handler) = chain.end {
            diagnosis.remarks.push(format!(
                "by the tables as they are now, the handler at {handler} could be called: they may have changed since"
            ));
        }
        let cr2 = self.state.special.cr2;
        let differs = chain.cr2().is_some_and(|address| address.0 != cr2);
        if differs && !self.is_repeated && chain.end == End::Shutdown {
            diagnosis.remarks.push(format!("CR2 is {cr2:#x}: there may have been another fault than these"));
        }
        let scene = Scene { state: self.state, memory: self.memory };
        if let Some(own) = autopsy::vector_of_handler(&scene, self.state.rip()) {
            let handled = mnemonic(own);
            diagnosis.facts.push(format!(
                "RIP is where the handler of {handled} starts: it was called, and could not run"
            ));
        }
        if diagnosis.hint.is_none() {
            diagnosis.hint = self.chain_hint(&chain);
        }
        diagnosis.chain = Some(chain);
    }

    fn chain_hint(&self, chain: &Chain) -> Option<String> {
        let hint = match chain.first().exception.vector {
            vector::DE => hints_of::DIVISION,
            vector::UD => hints_of::INVALID,
            vector::GP if chain.first().why.contains("no multiple of") => hints_of::MISALIGNED,
            vector::GP if chain.first().why.contains("not canonical") => hints_of::WILD,
            vector::GP => hints_of::PROTECTION,
            vector::DF if self.state.special.idt.limit == 0 => hints_of::NO_IDT,
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Cause, facts and hint of an exception that `state` was interrupted by.
    fn tell_exception(&self, diagnosis: &mut Diagnosis, exception: &Exception, why: &str, state: &CpuState) {
        diagnosis.exception = Some(*exception);
        diagnosis.cause = match exception.address {
            Some(_) => exception.to_string(),
            None if why.is_empty() => exception.to_string(),
            None => format!("{exception}: {why}"),
        };
        if exception.is_of_malformed_tables() && !why.is_empty() {
            diagnosis.cause.push_str(&format!(", as {why}"));
            diagnosis.hint = Some(hints_of::MALFORMED.to_owned());
        } else if let Some(address) = exception.address {
            let landmark = self.landmarks().at(address, state);
            diagnosis.cause.push_str(&format!(", {}", landmark.what));
            diagnosis.hint = landmark.hint.map(str::to_owned);
        }
        if let (Some(code), Some(words)) = (exception.error, exception.explain_error()) {
            diagnosis.facts.push(format!("error code {code:#x}: {words}"));
        }
        if exception.address.is_some() && !why.is_empty() {
            diagnosis.facts.push(format!("the page walk ends: {why}"));
        }
        if exception.address == Some(state.rip()) && !exception.is_of_malformed_tables() {
            self.tell_lost_code(diagnosis, exception, state);
        }
        if exception.address.is_some_and(|address| !self.is_code_at_start(address)) && exception.is_fetch() {
            // What stands there, if anything, is no code.
            diagnosis.instruction = None;
        }
    }

    /// What may have happened when the code itself cannot be fetched.
    fn tell_lost_code(&self, diagnosis: &mut Diagnosis, exception: &Exception, state: &CpuState) {
        // A program that comes to the kernel's code has not lost it.
        let is_by_user = exception.error.is_some_and(|error| error & page_fault::USER != 0);
        let first = self.map.first_tables().map(PageTables::root);
        let is_start = first.is_none_or(|first| state.special.cr3 & !0xFFF == first.0);
        if let Some(first) = first.filter(|_| self.is_code_at_start(state.rip()) && !is_start && !is_by_user)
        {
            let cr3 = state.special.cr3;
            diagnosis
                .facts
                .push(format!("CR3 is {cr3:#x}; the tables of the start, at {first}, still map this code"));
            diagnosis.hint = Some(hints_of::TABLES.to_owned());
        } else {
            diagnosis.hint = Some(hints_of::JUMP.to_owned());
        }
    }

    /// An exception that the guest's own kernel caught and told.
    fn exception(&self, frame: &ExceptionFrame) -> Diagnosis {
        let state = self.at_trap(CpuState::interrupted(frame, self.state), frame);
        let mut diagnosis = Diagnosis { died: true, ..self.plain(&state) };
        diagnosis.instruction = self.instruction(&state);
        let told = Exception::of(frame);
        let scene = Scene { state: &state, memory: self.memory };
        let found = match autopsy::examine(&scene) {
            Finding::Chain(chain) => Some(chain),
            _ => None,
        };
        match found {
            // `int n` without a gate: what it asked for is no exception, what it got is.
            Some(chain)
                if chain.first().exception.vector >= FIRST_INTERRUPT
                    && chain.first().exception.vector != told.vector =>
            {
                let why = chain.first().undelivered.as_ref().map_or("", |refusal| &refusal.why).to_owned();
                self.tell_exception(&mut diagnosis, &told, &why, &state);
                diagnosis.chain = Some(chain);
            }
            // Its own first exception could not be delivered: the handler of what came then speaks. Some KVMs make a
            // double fault of what the manual delivers one after the other.
            Some(chain)
                if chain.links.len() > 1
                    && [vector::DF, chain.last().exception.vector].contains(&told.vector) =>
            {
                self.tell_exception(&mut diagnosis, &chain.first().exception, &chain.first().why, &state);
                diagnosis.chain = Some(chain);
            }
            Some(chain) if chain.first().exception.vector == told.vector => {
                self.tell_exception(&mut diagnosis, &told, &chain.first().why, &state);
                diagnosis.hint = diagnosis.hint.take().or_else(|| self.chain_hint(&chain));
            }
            _ => self.tell_exception(&mut diagnosis, &told, "", &state),
        }
        diagnosis
    }

    /// The same state with RIP at the `int3` or `int n`: they are traps, and come when RIP is behind them.
    fn at_trap(&self, mut state: CpuState, frame: &ExceptionFrame) -> CpuState {
        let int3: &[u8] = &[0xCC];
        let int_n = [0xCD, frame.vector as u8];
        let is_breakpoint = frame.vector() == Some(shared_abi::Vector::Breakpoint);
        for instruction in [int3, &int_n] {
            let before = Gva(state.general.rip.wrapping_sub(instruction.len() as u64));
            let stands = crate::debug::instruction::bytes_at(&state.space(self.memory), before)
                .starts_with(instruction);
            let is_its_vector = if instruction == int3 { is_breakpoint } else { frame.vector >= 32 };
            if stands && is_its_vector {
                state.general.rip = before.0;
                break;
            }
        }
        state
    }

    /// A panic: the guest has told the words, the stack tells the way.
    fn panic(&self) -> Diagnosis {
        let mut diagnosis = self.plain(self.state);
        diagnosis.cause = self.report.to_string();
        diagnosis.backtrace = diagnosis.backtrace.without_panic();
        // They are those of the way out.
        diagnosis.registers = None;
        diagnosis
    }
}

/// Vectors below are those of exceptions (Intel SDM vol. 3A, 6.2).
const FIRST_INTERRUPT: u8 = 32;

impl Exception {
    /// What a guest tells of its exception.
    fn of(frame: &ExceptionFrame) -> Self {
        let vector = frame.vector.min(255) as u8;
        let has_error = frame.vector().is_some_and(shared_abi::Vector::has_error_code);
        Self { vector, error: has_error.then_some(frame.error_code as u32), address: frame.fault_address() }
    }
}

/// What to do next, by exception.
mod hints_of {
    pub(super) const DIVISION: &str = "check the divisor before dividing (checked_div)";
    pub(super) const INVALID: &str = "an instruction of this kind is unreachable code that was reached, or needs a CPU feature that is off";
    pub(super) const MISALIGNED: &str = "align the address; if it is on the stack, RSP was no multiple of 16 when the first function was called";
    pub(super) const PROTECTION: &str =
        "the first line says which rule was broken; Intel SDM vol. 3A, 6.15, has all of them";
    pub(super) const WILD: &str =
        "the pointer holds no address: look for one that was overwritten, or never set";
    pub(super) const NO_IDT: &str = "load an IDT (lidt) to learn of exceptions in the guest itself";
    pub(super) const MALFORMED: &str =
        "the entry is none that the CPU knows: Intel SDM vol. 3A, 4.5, draws the bits that must be 0";
    pub(super) const TABLES: &str =
        "map the code that runs in the new page tables, too, before CR3 is loaded";
    pub(super) const JUMP: &str = "a jump or call led to where no code is: look for a null or overwritten function pointer, or a smashed stack";
}
