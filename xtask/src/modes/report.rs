//! What the tour found: told while it goes on, as a table at its end, and as JSON.

use anyhow::Result;
use serde::Serialize;

use super::road;
use super::table::Mode;

/// The tour on one KVM.
#[derive(Debug, Serialize)]
pub(super) struct Tour {
    /// The KVM.
    pub(super) kvm: String,
    /// A row for each mode, in the order of the tour.
    pub(super) rows: Vec<Row>,
}

/// What became of a mode on a KVM.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    mode: &'static str,
    since: &'static str,
    address_bits: &'static str,
    pub(super) verdict: Verdict,
    /// How it failed, if it did.
    #[serde(skip_serializing_if = "String::is_empty")]
    how: String,
    /// On which KVMs it was seen working: this one, and those that the table knows.
    seen_on: Vec<String>,
    /// What the guest printed.
    lines: Vec<String>,
}

/// Whether a mode works on a KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// Its guest was there, and proved it.
    Works,
    /// The KVM does not offer it.
    Missing,
    /// The KVM offers it, and the guest failed.
    Failed,
}

impl Row {
    pub(super) fn new(
        mode: &'static Mode,
        kvm: &str,
        verdict: Verdict,
        how: String,
        lines: Vec<String>,
    ) -> Self {
        let &Mode { name, since, address_bits, seen_on, .. } = mode;
        let mut seen_on: Vec<String> = seen_on.iter().map(|&seen| seen.to_owned()).collect();
        if verdict == Verdict::Works && !seen_on.iter().any(|seen| seen == kvm) {
            seen_on.push(kvm.to_owned());
        }
        Self { mode: name, since, address_bits, verdict, how, seen_on, lines }
    }

    /// `yes`, or what happened instead.
    fn works(&self) -> String {
        match self.verdict {
            Verdict::Works => "yes".to_owned(),
            Verdict::Missing => format!("no: {}", self.how),
            Verdict::Failed => format!("FAILED: {}", self.how),
        }
    }
}

/// Tells what just became of a mode. stdout is for the table.
pub(super) fn tell(row: &Row) {
    eprintln!("xtask: {} ({}): {}", row.mode, row.since, row.works());
    let road = road::told(&row.lines);
    let lines = if road.is_empty() { &row.lines } else { &road };
    lines.iter().for_each(|line| eprintln!("         {line}"));
}

/// The tours for programs.
pub(super) fn json(tours: &[Tour]) -> Result<String> {
    Ok(serde_json::to_string_pretty(tours)?)
}

/// The tours as tables, one below the other.
pub(super) fn text(tours: &[Tour]) -> String {
    tours.iter().map(table).collect::<Vec<_>>().join("\n\n")
}

fn table(tour: &Tour) -> String {
    let on = format!("on {}", tour.kvm);
    let header = ["mode", "since", "address bits", "seen working on", &on].map(str::to_owned);
    let row = |row: &Row| {
        let seen_on = if row.seen_on.is_empty() { "-".to_owned() } else { row.seen_on.join(", ") };
        let [mode, since, bits] = [row.mode, row.since, row.address_bits].map(str::to_owned);
        [mode, since, bits, seen_on, row.works()]
    };
    let rows: Vec<_> = std::iter::once(header).chain(tour.rows.iter().map(row)).collect();
    let width =
        |column: usize| rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count())).max();
    let widths: Vec<_> = (0..5).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::table::MODES;
    use super::*;

    #[test]
    fn a_row_says_where_it_works_or_how_it_failed() {
        let mode = MODES.first().expect("there are modes");
        let works = Row::new(mode, "kvm_intel", Verdict::Works, String::new(), Vec::new());
        let missing = Row::new(mode, "kvm_intel", Verdict::Missing, "a triple fault".to_owned(), Vec::new());
        let tour = Tour { kvm: "kvm_intel".to_owned(), rows: vec![works, missing] };
        let text = table(&tour);
        let mut lines = text.lines();
        assert!(lines.next().is_some_and(|line| line.ends_with("on kvm_intel")), "{text}");
        assert!(
            lines.next().is_some_and(|line| line.ends_with("kvm_pvm, kvm_amd, kvm_intel  yes")),
            "{text}"
        );
        assert!(lines.next().is_some_and(|line| line.ends_with("no: a triple fault")), "{text}");
    }
}
