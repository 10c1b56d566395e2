//! `Summary`: what [`Stats`](crate::observe::Stats) tell, as data: by kind of exit and by line of the guest.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::cpus::VcpuId;
use crate::debug::{Detail, Symbols};
use crate::observe::entry::{Kind, Target};
use crate::observe::instruction;
use crate::observe::lines::{Lined, Lines};
use crate::observe::stats::Sites;
use crate::observe::{ExitCounts, Handlers};

/// What exits were there, by kind and by line of the guest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The version of this data: [`Summary::VERSION`].
    pub version: u32,
    /// Why there are no lines, or no names either, where that is so: a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The report's own counts.
    pub counts: ExitCounts,
    /// All of it.
    pub total: Tally,
    /// By kind, in the order of [`Kind`].
    pub kinds: Vec<KindRow>,
    /// By vCPU, where the machine has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vcpus: Vec<VcpuRow>,
    /// By line, those with most exits first.
    pub lines: Vec<LineRow>,
}

/// Exits, and what they took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many.
    pub exits: u64,
    /// Bytes through ports and to and from devices; of hypercalls, those that their answers count.
    pub bytes: u64,
    /// Nanoseconds in the guest before them.
    pub guest_ns: u64,
    /// Nanoseconds in the host behind them.
    pub host_ns: u64,
}

/// Exits of one kind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KindRow {
    /// The kind.
    pub kind: Kind,
    /// How many.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Exits of one vCPU.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VcpuRow {
    /// Which.
    pub vcpu: VcpuId,
    /// How many.
    #[serde(flatten)]
    pub tally: Tally,
}

/// Exits of one line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LineRow {
    /// The line of the program that led to them; `None` for those of places beyond
    /// [`MAX_SITES`](crate::observe::MAX_SITES), which are added up.
    pub caller: Option<Line>,
    /// The line of the instruction that left the guest.
    pub instruction: Option<Line>,
    /// The kind.
    pub kind: Kind,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The guest-physical address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpa: Option<u64>,
    /// The number of the hypercall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<u64>,
    /// Who answers there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handler: Option<&'static str>,
    /// How many.
    #[serde(flatten)]
    pub tally: Tally,
}

/// A place in the guest's source, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    /// The function.
    pub function: Option<String>,
    /// The file, relative to where it was compiled.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// An address in it. Lines that are known are compared without it.
    pub address: u64,
}

impl Line {
    /// The same place, whichever of its addresses: the address says no more than the line does.
    fn without_address(self) -> Self {
        let address = if self.function.is_some() { 0 } else { self.address };
        Self { address, ..self }
    }
}

impl fmt::Display for Line {
    /// `function at file:line`, or less.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(function) = &self.function else { return write!(f, "{:#x}", self.address) };
        f.write_str(function)?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " at {file}:{line}"),
            _ => Ok(()),
        }
    }
}

/// What exits of one row have in common.
type Key = (Lined, Kind, Target);

impl Summary {
    /// Raised when a field changes its meaning or goes; not when one is added.
    pub const VERSION: u32 = 1;

    pub(super) fn of(sites: &Sites, counts: &ExitCounts, handlers: &Handlers, symbols: &Symbols) -> Self {
        let mut rows = rows(sites, symbols);
        let mut kinds: BTreeMap<Kind, Tally> = BTreeMap::new();
        let mut total = Tally::default();
        for ((_, kind, _), tally) in &rows {
            kinds.entry(*kind).or_default().join(tally);
            total.join(tally);
        }
        rows.sort_by(|(a_key, a), (b_key, b)| b.exits.cmp(&a.exits).then_with(|| a_key.cmp(b_key)));
        Self {
            version: Self::VERSION,
            missing: missing(sites, symbols),
            counts: *counts,
            total,
            kinds: kinds.into_iter().map(|(kind, tally)| KindRow { kind, tally }).collect(),
            vcpus: sites.by_vcpu().map(|(vcpu, tally)| VcpuRow { vcpu, tally }).collect(),
            lines: rows.into_iter().map(|(key, tally)| LineRow::of(key, tally, handlers)).collect(),
        }
    }
}

/// Why there are no lines, where there are none.
fn missing(sites: &Sites, symbols: &Symbols) -> Option<String> {
    if sites.known().iter().any(|known| known.site.rip.is_none()) {
        return Some(
            "no lines: this host's KVM does not tell registers at an exit (KVM_CAP_SYNC_REGS)".to_owned(),
        );
    }
    (*symbols.detail() != Detail::Lines).then(|| symbols.detail().to_string())
}

fn rows(sites: &Sites, symbols: &Symbols) -> Vec<(Key, Tally)> {
    let usual = sites.known().iter().find_map(|known| known.code.shows());
    let mut lines = Lines::default();
    let mut rows: BTreeMap<Key, Tally> = BTreeMap::new();
    for known in sites.known() {
        let at = instruction::address(&known.site, &known.code, usual);
        let Lined { instruction, caller } = lines.of(&known.site, at, symbols);
        let lined = Lined {
            instruction: instruction.map(Line::without_address),
            caller: caller.map(Line::without_address),
        };
        rows.entry((lined, known.site.kind, known.site.target)).or_default().join(&known.tally);
    }
    let nowhere = Lined { instruction: None, caller: None };
    for (kind, tally) in sites.rest() {
        rows.entry((nowhere.clone(), kind, Target::Nothing)).or_default().join(&tally);
    }
    rows.into_iter().collect()
}

impl Tally {
    fn join(&mut self, other: &Self) {
        self.exits += other.exits;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.guest_ns += other.guest_ns;
        self.host_ns += other.host_ns;
    }

    /// Nanoseconds in all.
    #[must_use]
    pub fn ns(&self) -> u64 {
        self.guest_ns + self.host_ns
    }
}

impl LineRow {
    fn of((lined, kind, target): Key, tally: Tally, handlers: &Handlers) -> Self {
        let (mut port, mut gpa, mut call) = (None, None, None);
        match target {
            Target::Nothing => {}
            Target::Port(number) => port = Some(number),
            Target::Memory(address) => gpa = Some(address.0),
            Target::Call(number) => call = Some(number),
        }
        let Lined { caller, instruction } = lined;
        Self { caller, instruction, kind, port, gpa, call, handler: handlers.name(target), tally }
    }

    /// What the guest turned to.
    pub(super) fn target(&self) -> Target {
        let port = self.port.map(Target::Port);
        let memory = || self.gpa.map(|gpa| Target::Memory(shared_abi::Gpa(gpa)));
        port.or_else(memory).or(self.call.map(Target::Call)).unwrap_or_default()
    }
}
