//! Exits by kind and by line, and the timeline's words, as the page shows them.

use super::page::{Exits, Kind, Line, Words};
use crate::observe::{self, LineRow, Sampled, Summary, Tally};

/// Lines that are shown as a table, those with most exits first.
const SHOWN_LINES: usize = 100;
/// Lines that are in the page at all.
const MAX_LINES: usize = 1000;

/// Letters of a function's or file's name that are in the page: an image may have names of any length.
const MAX_NAME: usize = 1000;

/// Leaves out what no page needs: lines beyond [`MAX_LINES`], which it tells, and the ends of endless names.
pub(super) fn cut(summary: &mut Summary) {
    if summary.lines.len() > MAX_LINES {
        let text = format!("only {MAX_LINES} of {} lines are here", summary.lines.len());
        let before = summary.missing.take().map(|missing| missing + "; ").unwrap_or_default();
        summary.missing = Some(before + &text);
        summary.lines.truncate(MAX_LINES);
    }
    let rows = summary.lines.iter_mut().flat_map(|row| [&mut row.caller, &mut row.instruction]);
    for name in rows.flatten().flat_map(|line| [&mut line.function, &mut line.file]).flatten() {
        if let Some((end, _)) = name.char_indices().nth(MAX_NAME) {
            name.truncate(end);
        }
    }
}

/// The two tables.
pub(super) fn exits(summary: &Summary) -> Exits {
    let total = summary.total.exits;
    let mut note = summary.missing.clone().into_iter().collect::<Vec<_>>();
    if summary.lines.len() > SHOWN_LINES {
        note.push(format!("{} lines with fewer exits are not shown", summary.lines.len() - SHOWN_LINES));
    }
    Exits {
        lead: format!(
            "{} times the guest left, the host answered, and the guest went on. Time in the host is from the exit to \
             the next entry.",
            grouped(total)
        ),
        note: note.join("; "),
        kinds: summary
            .kinds
            .iter()
            .map(|row| Kind {
                name: row.kind.word().to_owned(),
                class: class(row.kind),
                count: grouped(row.tally.exits),
                time: short(row.tally.host_ns),
                percent: percent(&row.tally, total),
            })
            .collect(),
        lines: summary.lines.iter().take(SHOWN_LINES).map(|row| line(row, total)).collect(),
    }
}

fn line(row: &LineRow, total: u64) -> Line {
    let at = row.caller.as_ref().or(row.instruction.as_ref());
    let place = at.map(|line| match (&line.file, line.line) {
        (Some(file), Some(number)) => format!("{file}:{number}"),
        _ => format!("{:#x}", line.address),
    });
    let function = at.and_then(|line| line.function.clone()).unwrap_or_default();
    let by = if function.is_empty() { String::new() } else { format!(" by {function}") };
    Line {
        place: place.unwrap_or_else(|| "(not known)".to_owned()),
        function: row.what() + &by,
        class: class(row.kind),
        count: grouped(row.tally.exits),
        time: short(row.tally.host_ns),
        percent: percent(&row.tally, total),
    }
}

/// What stands around the timeline.
pub(super) fn timeline(sampled: &Sampled) -> Words {
    let kept = sampled.exits.len() as u64;
    let note = match sampled.left_out {
        0 => String::new(),
        left_out => format!(
            "The timeline has the first and the last of {} exits, {} in all; {} between them are left out. The \
             tables above count every exit.",
            grouped(sampled.total),
            grouped(kept),
            grouped(left_out)
        ),
    };
    let lead = format!(
        "{} from the first entry to the end. A mark is an exit, as long as the host took; between marks the guest runs.",
        short(sampled.end_ns)
    );
    Words { lead, note }
}

/// The colour of a kind: `script.js` has the same.
fn class(kind: observe::Kind) -> &'static str {
    match kind {
        observe::Kind::PioOut => "e-out",
        observe::Kind::PioIn => "e-in",
        observe::Kind::Hypercall => "e-call",
        observe::Kind::MmioRead | observe::Kind::MmioWrite => "e-mmio",
        observe::Kind::Halt | observe::Kind::Interrupted | observe::Kind::IoapicEoi => "e-halt",
        _ => "e-end",
    }
}

/// At least one where there is anything: a bar must be seen.
fn percent(tally: &Tally, total: u64) -> u64 {
    (tally.exits.saturating_mul(100) / total.max(1)).clamp(1, 100)
}

/// Nanoseconds in three digits and a unit.
pub(super) fn short(ns: u64) -> String {
    let (unit, of) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => ("µs", 1e3),
        1_000_000..1_000_000_000 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    format!("{:.1} {unit}", ns as f64 / of)
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn many_lines_with_long_names_are_cut_and_the_page_says_so() {
        let line = observe::Line {
            function: Some("ü".repeat(MAX_NAME + 1)),
            file: Some("main.c".to_owned()),
            line: Some(1),
            address: 0,
        };
        let row = LineRow {
            caller: Some(line),
            instruction: None,
            kind: observe::Kind::PioOut,
            port: Some(0xE9),
            gpa: None,
            call: None,
            handler: None,
            tally: Tally::default(),
        };
        let mut summary = Summary {
            vcpus: Vec::new(),
            version: Summary::VERSION,
            missing: None,
            counts: observe::ExitCounts::default(),
            total: Tally::default(),
            kinds: Vec::new(),
            lines: vec![row; MAX_LINES + 5],
        };
        cut(&mut summary);
        assert_eq!(summary.lines.len(), MAX_LINES);
        assert_eq!(summary.missing.as_deref(), Some("only 1000 of 1005 lines are here"));
        let line = summary.lines[0].caller.as_ref().expect("a line");
        assert_eq!(line.function.as_ref().expect("a name").chars().count(), MAX_NAME);
        assert_eq!(line.file.as_deref(), Some("main.c"));
    }

    #[test]
    fn what_was_left_out_of_the_timeline_is_told() {
        assert_eq!(timeline(&Sampled { total: 3, ..Sampled::default() }).note, "");
        let note = timeline(&Sampled { total: 1_000_000, left_out: 992_000, ..Sampled::default() }).note;
        assert!(note.contains("1,000,000") && note.contains("992,000"), "{note}");
    }
}
