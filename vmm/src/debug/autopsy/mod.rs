//! The autopsy of a triple fault: which exception came first, and why each handler that the CPU then tried failed.
//!
//! A triple fault tells nothing by itself. But a KVM that keeps the registers leaves RIP at the instruction that
//! raised the first exception, and memory as it was. So the CPU's steps can be taken once more, on paper:
//!
//! ```text
//! first::of        fetch, decode, operands: what does this instruction raise?      #PF: write to 0x8
//! delivery::deliver  IDT, gate, code segment, stack, push: which step fails?       IDT limit 0: no gate 14
//! Chain::of        two that do not get along are a double fault: deliver that      #DF: no gate 8
//!                  and when that fails, the CPU shuts down                         shutdown
//! ```
//!
//! Pure: registers and memory in, chain out. Both may hold anything; every loop here is bounded by the chain's length.
//! Every mode is followed: 64-bit mode here, where guests of ours live, the others in `older.rs`. Five levels of page tables
//! are not, and it says so.

mod access;
mod delivery;
mod descriptor;
mod first;
mod older;
mod system;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;
use shared_abi::Gva;
use x86_64::registers::control::Cr4Flags;

pub use access::Scene;
use delivery::Source;

use crate::debug::exception::{Exception, mnemonic, vector};
use crate::debug::mode::Mode;

/// An exception and what raised it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Raised {
    /// The exception.
    pub exception: Exception,
    /// The rule that was broken, as a clause.
    pub why: String,
}

impl Raised {
    fn new(exception: Exception, why: String) -> Self {
        Self { exception, why }
    }

    /// The same, raised while the CPU was about something.
    fn during(self, what: &str) -> Self {
        let Self { exception, why } = self;
        let why = match exception.address {
            Some(_) => format!("{what}: {exception} ({why})"),
            None => format!("{what}: {why}"),
        };
        Self { exception, why }
    }
}

/// An exception and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The exception.
    pub exception: Exception,
    /// Why it was raised; empty for a double fault, whose reason is the link before.
    pub why: String,
    /// What was raised instead of calling its handler, and why; `None` when it could be called.
    pub undelivered: Option<Raised>,
}

/// Where a chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The double fault's handler could not be called either.
    Shutdown,
    /// By the tables as they are, this handler could be called.
    Handled(#[serde(serialize_with = "crate::debug::exception::address")] Gva),
}

/// From the first exception to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// The exceptions, the first first; never empty.
    pub links: Vec<Link>,
    /// What came then.
    pub end: End,
}

/// What an autopsy finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The instruction at RIP raises an exception, and this follows.
    Chain(Chain),
    /// As far as can be told from outside, the instruction at RIP raises none; and what may have happened.
    NoException(String),
    /// The CPU was in a mode that is not followed here.
    NotFollowed(String),
}

/// How two exceptions get along. Intel SDM vol. 3A, table 6-5.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
}

impl Class {
    fn of(exception: &Exception) -> Self {
        match exception.vector {
            vector::DE | vector::TS..=vector::GP | vector::CP => Self::Contributory,
            vector::PF => Self::PageFault,
            _ => Self::Benign,
        }
    }

    /// Whether `second`, raised while one of this class is delivered, makes a double fault.
    fn doubles_with(self, second: Self) -> bool {
        match self {
            Self::Benign => false,
            Self::Contributory => second == Self::Contributory,
            Self::PageFault => second != Self::Benign,
        }
    }
}

/// Finds out what killed the guest.
#[must_use]
pub fn examine(scene: &Scene<'_>) -> Finding {
    if let Some(mode) = unfollowed_mode(scene) {
        return Finding::NotFollowed(mode.to_owned());
    }
    let first = if Mode::of(scene.state) == Mode::Long { first::of(scene) } else { older::first(scene) };
    match first {
        Ok(why) => Finding::NoException(why),
        Err((raised, source)) => Finding::Chain(Chain::of(scene, raised, source)),
    }
}

/// The vector whose handler starts at `gva`, by the guest's IDT.
#[must_use]
pub fn vector_of_handler(scene: &Scene<'_>, gva: Gva) -> Option<u8> {
    (0..32).find(|&vector| delivery::handler_of(scene, vector) == Some(gva))
}

fn unfollowed_mode(scene: &Scene<'_>) -> Option<&'static str> {
    let has_five_levels = scene.is_long() && scene.cr4().contains(Cr4Flags::L5_PAGING);
    has_five_levels.then_some("the CPU used page tables of five levels")
}

impl Chain {
    /// Follows `first` as the CPU does.
    fn of(scene: &Scene<'_>, first: Raised, source: Source) -> Self {
        let mut links = Vec::new();
        let (mut current, mut source) = (first, source);
        loop {
            let class = Class::of(&current.exception);
            let is_double_fault = current.exception.vector == vector::DF;
            let delivered = delivery::deliver(scene, &current.exception, source);
            let undelivered = delivered.as_ref().err().cloned();
            links.push(Link { exception: current.exception, why: current.why, undelivered });
            match delivered {
                Ok(handler) => return Self { links, end: End::Handled(handler) },
                Err(_) if is_double_fault => return Self { links, end: End::Shutdown },
                Err(second) if class.doubles_with(Class::of(&second.exception)) => {
                    current = Raised::new(Exception::with_error(vector::DF, 0), String::new());
                }
                // One after the other: the second is delivered as if it had been the first.
                Err(second) => current = second,
            }
            source = Source::Event;
        }
    }

    /// The exception that the instruction raised.
    #[must_use]
    pub fn first(&self) -> &Link {
        self.links.first().expect("a chain has at least one link")
    }

    /// The last exception: the double fault of a shutdown, or the one whose handler could be called.
    #[must_use]
    pub fn last(&self) -> &Link {
        self.links.last().expect("a chain has at least one link")
    }

    /// What CR2 holds at the end: the address of the last page fault.
    #[must_use]
    pub fn cr2(&self) -> Option<Gva> {
        let raised = |link: &Link| link.undelivered.as_ref().and_then(|second| second.exception.address);
        self.links.iter().rev().find_map(|link| raised(link).or(link.exception.address))
    }

    /// The chain as steps, each a clause.
    #[must_use]
    pub fn steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        for (index, link) in self.links.iter().enumerate() {
            steps.push(match (index, link.why.is_empty()) {
                (0, false) => format!("{} ({})", link.exception, link.why),
                _ => mnemonic(link.exception.vector),
            });
            steps.extend(link.undelivered.as_ref().map(|second| second.why.clone()));
        }
        steps.push(match self.end {
            End::Shutdown => "shutdown".to_owned(),
            End::Handled(handler) => format!("handler at {handler}"),
        });
        steps
    }
}

impl fmt::Display for Chain {
    /// `#PF: write to 0x8 (PT[0] not present) -> IDT limit 0x0, no gate for vector 14 -> #DF -> … -> shutdown`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.steps().join(" -> "))
    }
}
