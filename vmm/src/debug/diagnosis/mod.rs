//! `Diagnosis`: why a guest ended, where in its source, and what to do about it.
//!
//! Data first: tests and programs read the fields, people read what [`Display`](fmt::Display) makes of them. The first
//! line is the answer; the rest is what it rests on. [`Evidence`] is what it is made from.

mod code;
mod emulation;
mod evidence;
mod registers;
mod stopped;

use std::fmt;

use serde::Serialize;

use crate::cpus::VcpuId;
use crate::debug::autopsy::Chain;
use crate::debug::backtrace::Backtrace;
use crate::debug::bystanders::{Bystander, Doing};
use crate::debug::exception::Exception;
use crate::debug::instruction::Instruction;

pub use evidence::Evidence;
pub use registers::Registers;

/// Why a guest ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// Whether the guest died, and not only ended or was stopped.
    pub died: bool,
    /// Why, as a clause: `#PF: write to 0x8, page 0: null dereference`.
    pub cause: String,
    /// The vCPU that it happened on, where the machine has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<VcpuId>,
    /// The function that did it, or was running: the innermost that is not of Rust's library.
    pub function: Option<String>,
    /// Its source file.
    pub file: Option<String>,
    /// The line in it.
    pub line: Option<u32>,
    /// The first exception, when one ended the guest.
    pub exception: Option<Exception>,
    /// What the CPU then tried, and why it failed: for triple and double faults.
    pub chain: Option<Chain>,
    /// What is known besides, each a clause.
    pub facts: Vec<String>,
    /// The instruction that did it.
    pub instruction: Option<Instruction>,
    /// What to do next.
    pub hint: Option<String>,
    /// The registers, as the guest had them.
    pub registers: Option<Registers>,
    /// Who called whom.
    pub backtrace: Backtrace,
    /// What the other vCPUs were about, where the machine has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Bystander>,
    /// How far all this can be trusted, and what could not be told: each a sentence without full stop.
    pub remarks: Vec<String>,
}

impl Diagnosis {
    /// The first line: `the guest died: CAUSE, in FUNCTION at FILE:LINE`; behind the cause the vCPU, if there are several.
    #[must_use]
    pub fn headline(&self) -> String {
        let mut line = if self.died { "the guest died: ".to_owned() } else { String::new() };
        line.push_str(&self.cause);
        if let Some(vcpu) = self.vcpu {
            line.push_str(&format!(", on {vcpu}"));
        }
        if let Some(function) = &self.function {
            line.push_str(&format!(", in {function}"));
        }
        if let Some(place) = self.place() {
            line.push_str(&format!(" at {place}"));
        }
        line
    }

    /// `file:line`, when both are known.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        Some(format!("{}:{}", self.file.as_ref()?, self.line?))
    }

    /// All of it for programs.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings, numbers and lists are always JSON")
    }

    /// All of it for people, in colour if the terminal shows any; without a newline at the end.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let (bold, red, off) = if colour { ("\x1b[1m", "\x1b[1;31m", "\x1b[0m") } else { ("", "", "") };
        let mut lines = vec![format!("{}{}{off}", if self.died { red } else { bold }, self.headline())];
        let mut add = |title: &str, text: String| {
            lines.push(format!("{bold}{title}:{off}{}{text}", if text.starts_with('\n') { "" } else { " " }));
        };
        if let Some(chain) = &self.chain {
            add("chain", chain.steps().join("\n    -> "));
        }
        for fact in &self.facts {
            add("fact", fact.clone());
        }
        if let Some(instruction) = &self.instruction {
            add("instruction", instruction_words(instruction));
        }
        if let Some(registers) = &self.registers {
            add("registers", format!("\n{registers}"));
        }
        if !self.backtrace.frames.is_empty() {
            add("backtrace", format!("\n{}", self.backtrace));
        }
        if !self.others.is_empty() {
            add("others", others(&self.others).join("; "));
        }
        for remark in &self.remarks {
            add("note", remark.clone());
        }
        if let Some(hint) = &self.hint {
            add("next", hint.clone());
        }
        lines.join("\n")
    }
}

/// What the other vCPUs were about; those that were never started or have halted are many, and told together.
fn others(others: &[Bystander]) -> Vec<String> {
    let idle = |wanted: &Doing, words: &str| {
        let count = others.iter().filter(|other| other.doing == *wanted).count();
        match count {
            0 => None,
            1 => others.iter().find(|other| other.doing == *wanted).map(ToString::to_string),
            count => Some(format!("{count} {words}")),
        }
    };
    let running = others.iter().filter(|other| matches!(other.doing, Doing::Running(_)));
    let mut told: Vec<_> = running.map(ToString::to_string).collect();
    told.extend(idle(&Doing::Waiting, "waited for an interrupt"));
    told.extend(idle(&Doing::Halted, "had halted"));
    told.extend(idle(&Doing::Unstarted, "were never started"));
    told
}

/// `at 0x101234: c6 00 01  mov byte ptr [rax], 1; 0x8 is written, 1 byte`
fn instruction_words(instruction: &Instruction) -> String {
    let mut words = format!("at {}: {instruction}", instruction.gva);
    for operand in &instruction.operands {
        let bytes = match operand.size {
            0 => String::new(),
            1 => ", 1 byte".to_owned(),
            size => format!(", {size} bytes"),
        };
        words.push_str(&format!("; {} is {}{bytes}", operand.gva, operand.access));
    }
    words
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
