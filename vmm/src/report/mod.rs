//! `RunReport`: how a run ended, and what was observed; `HtmlReport`: the same run as a page.

mod exits;
mod html;
mod map;
mod page;
mod registers;

pub use html::{HtmlReport, Recording};

use std::fmt::{self, Write};

use shared_abi::{Gva, exit_code};

use crate::cpus::VcpuId;
use crate::harmless::is_harmless;
use crate::next::StopReason;
use crate::observe::ExitCounts;

/// How a run ended, and what was observed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// Why it ended.
    pub stop: StopReason,
    /// The vCPU that it ended on, where the machine has several.
    pub vcpu: Option<VcpuId>,
    /// Where that vCPU would have continued, or the instruction that its exception interrupted; `None` when KVM does
    /// not tell.
    pub rip: Option<Gva>,
    /// The last words of a guest that panicked, as it said them, cut after some KiB.
    pub panic: Option<String>,
    /// How often the guest exited.
    pub exits: ExitCounts,
}

impl RunReport {
    /// Whether there is anything a user must be told: not when the guest ended as it wanted.
    #[must_use]
    pub fn is_unremarkable(&self) -> bool {
        match self.stop {
            StopReason::Exited { code } => code <= exit_code::LAST,
            StopReason::Halted { interrupts_enabled } => !interrupts_enabled,
            StopReason::ConsoleClosed => true,
            _ => false,
        }
    }

    /// What the guest said of a panic before it ended in another way: `it had panicked at …`.
    #[must_use]
    pub fn earlier_panic(&self) -> Option<String> {
        let ended_by_it = self.stop == StopReason::Exited { code: exit_code::PANICKED };
        self.panic.as_ref().filter(|_| !ended_by_it).map(|words| format!("it had {}", Panicked(words)))
    }
}

impl fmt::Display for RunReport {
    /// One line: why, and where.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (StopReason::Exited { code: exit_code::PANICKED }, Some(words)) = (&self.stop, &self.panic) {
            write!(f, "the guest {}", Panicked(words))?;
            return self.vcpu.map_or(Ok(()), |vcpu| write!(f, ", on {vcpu}"));
        }
        write!(f, "{}", self.stop)?;
        if let Some(vcpu) = self.vcpu {
            write!(f, ", on {vcpu}")?;
        }
        match (&self.stop, self.rip) {
            (StopReason::Exited { .. }, _) | (_, None) => {}
            // A shutdown may reset the vCPU, and then its RIP is not where the guest died.
            (StopReason::TripleFault, Some(rip)) => write!(f, "; RIP is now {rip}")?,
            (StopReason::TimedOut { .. } | StopReason::Interrupted | StopReason::Paused, Some(rip)) => {
                write!(f, " at RIP {rip}")?
            }
            (StopReason::Exception(_), Some(rip)) => write!(f, "; RIP was {rip}")?,
            (_, Some(rip)) => write!(f, "; RIP is {rip}")?,
        }
        match self.earlier_panic() {
            Some(panic) => write!(f, "; {panic}"),
            None => Ok(()),
        }
    }
}

/// The words of a panic on one line: `panicked at src/main.rs:7:5: message`.
struct Panicked<'a>(&'a str);

impl fmt::Display for Panicked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rust puts place and message on two lines.
        let (place, message) = match self.0.strip_prefix("panicked at ") {
            Some(words) => words.split_once(":\n").unwrap_or((words, "")),
            None => ("", self.0),
        };
        f.write_str("panicked")?;
        for (sign, text) in
            [(" at ", place), (": ", message)].into_iter().filter(|(_, text)| !text.is_empty())
        {
            write!(f, "{sign}{}", Escaped(text))?;
        }
        Ok(())
    }
}

/// Text whose control characters are written as in a Rust string, so that it is one line and moves no cursor.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            if is_harmless(c) { f.write_char(c) } else { write!(f, "{}", c.escape_default()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(stop: StopReason, panic: &str) -> String {
        RunReport {
            stop,
            vcpu: None,
            rip: Some(Gva(0x1000)),
            panic: Some(panic.to_owned()),
            exits: ExitCounts::default(),
        }
        .to_string()
    }

    #[test]
    fn a_panic_is_one_line_whatever_its_words() {
        let panicked = |words| line(StopReason::Exited { code: exit_code::PANICKED }, words);
        for (words, expected) in [
            ("panicked at src/a.rs:1:2:\nno more", "the guest panicked at src/a.rs:1:2: no more"),
            (
                "panicked at src/a.rs:1:2:\na\n  b\u{1b}[2J",
                "the guest panicked at src/a.rs:1:2: a\\n  b\\u{1b}[2J",
            ),
            ("panicked at src/a.rs:1:2", "the guest panicked at src/a.rs:1:2"),
            ("own words\r", "the guest panicked: own words\\r"),
        ] {
            assert_eq!(panicked(words), expected);
        }
    }

    #[test]
    fn a_guest_that_dies_after_its_panic_is_told_so() {
        let told = line(StopReason::TripleFault, "panicked at a.rs:1:2:\nno");
        assert_eq!(
            told,
            "the guest died of a triple fault; RIP is now 0x1000; it had panicked at a.rs:1:2: no"
        );
    }
}
