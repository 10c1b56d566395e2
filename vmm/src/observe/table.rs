//! Tables for people: [`Summary`] and the lines of [`Trace`](crate::observe::Trace).

use std::fmt;
use std::time::Duration;

use crate::observe::entry::Kind;
use crate::observe::summary::{Line, LineRow, Summary, Tally};

/// Lines that a table shows; the data has all of them.
const SHOWN: usize = 40;

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:24} {:>9} {:>10} {:>10} {:>10} {:>7}",
            "exits by kind", "exits", "bytes", "in guest", "in host", "time"
        )?;
        for row in &self.kinds {
            writeln!(f, "{:24} {}", row.kind.word(), self.cells(&row.tally))?;
        }
        for row in self.vcpus.iter().filter(|row| row.tally.exits > 0) {
            writeln!(f, "{:24} {}", row.vcpu.to_string(), self.cells(&row.tally))?;
        }
        writeln!(f, "{:24} {}", "all", self.cells(&self.total))?;
        writeln!(f)?;
        writeln!(
            f,
            "{:24} {:>9} {:>10} {:>10} {:>10} {:>7}  line",
            "exits by line", "exits", "bytes", "in guest", "in host", "time"
        )?;
        for row in self.lines.iter().take(SHOWN) {
            writeln!(f, "{:24} {}  {}", row.what(), self.cells(&row.tally), row.place())?;
        }
        let left = self.lines.len().saturating_sub(SHOWN);
        if left > 0 {
            writeln!(f, "… and {left} lines with fewer exits")?;
        }
        self.missing.iter().try_for_each(|missing| writeln!(f, "{missing}"))
    }
}

impl Summary {
    fn cells(&self, tally: &Tally) -> String {
        let share = tally.ns() as f64 * 100.0 / self.total.ns().max(1) as f64;
        format!(
            "{:>9} {:>10} {:>10} {:>10} {share:>5.1} %",
            tally.exits,
            tally.bytes,
            short(tally.guest_ns),
            short(tally.host_ns)
        )
    }
}

impl LineRow {
    /// The handler with its number, or the kind.
    #[must_use]
    pub fn what(&self) -> String {
        what(self.kind, &self.target().to_string(), self.handler)
    }

    fn place(&self) -> String {
        place(self.caller.as_ref(), self.instruction.as_ref())
    }
}

/// What left, in a few characters: `out 0xe9 console`.
pub(super) fn what(kind: Kind, target: &str, handler: Option<&str>) -> String {
    match (kind, handler) {
        (Kind::PioOut, _) => format!("out {target} {}", handler.unwrap_or("nobody")),
        (Kind::PioIn, _) => format!("in {target} {}", handler.unwrap_or("nobody")),
        (Kind::MmioWrite, _) => format!("write {target} {}", handler.unwrap_or("nobody")),
        (Kind::MmioRead, _) => format!("read {target} {}", handler.unwrap_or("nobody")),
        (Kind::Hypercall, Some(handler)) => handler.to_owned(),
        (Kind::Hypercall, None) => format!("call {target}"),
        _ => kind.word().to_owned(),
    }
}

/// The line of the program; the instruction's behind it, when that is another.
pub(super) fn place(caller: Option<&Line>, instruction: Option<&Line>) -> String {
    match (caller, instruction) {
        (Some(caller), Some(instruction)) if caller != instruction => format!("{caller}  ({instruction})"),
        (Some(line), _) | (None, Some(line)) => line.to_string(),
        (None, None) => "(not known)".to_owned(),
    }
}

/// Nanoseconds in three digits and a unit.
pub(super) fn short(ns: u64) -> String {
    let time = Duration::from_nanos(ns);
    if ns < 1000 { format!("{time:?}") } else { format!("{time:.1?}") }
}
