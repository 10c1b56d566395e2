//! `MemoryMap` for people: a table, and below it what the linter has to say.

use std::fmt;

use super::map::{MemoryMap, Row};
use super::moment::When;
use super::words::size;

/// More findings than this are for JSON.
const MAX_FINDINGS: usize = 50;

impl MemoryMap {
    /// The same for people, as [`Display`](fmt::Display) has it, in `colour` if the terminal shows any.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let when = match self.moment.when {
            When::Start => "at the start",
            When::Stop => "where the guest stopped",
        };
        let (bold, red, off) = if colour { ("\x1b[1m", "\x1b[31m", "\x1b[0m") } else { ("", "", "") };
        let mut text = format!("guest memory {when}, CR3{} = {}\n", self.moment.whose(), self.moment.cr3);
        if let Some(note) = &self.moment.note {
            text.push_str(&format!("note: {note}\n"));
        }
        let header = line(["GPA", "GVA", "HVA", "size", "rights", "pages", "what"].map(str::to_owned));
        text.push_str(&format!("{bold}{header}{off}\n"));
        for row in &self.rows {
            text.push_str(&format!("{}\n", line(cells(row))));
        }
        if let Some(cut) = &self.cut {
            text.push_str(&format!("{red}cut{off}: {cut}\n"));
        }
        if self.findings.is_empty() {
            text.push_str("nothing is wrong with these mappings");
        }
        let findings: Vec<String> = self
            .findings
            .iter()
            .take(MAX_FINDINGS)
            .map(|finding| format!("{red}wrong{off}: {}", finding.text))
            .collect();
        text.push_str(&findings.join("\n"));
        text
    }
}

impl fmt::Display for MemoryMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

fn cells(row: &Row) -> [String; 7] {
    let gva = match row.gva {
        Some(gva) if gva == row.gpa => "= GPA".to_owned(),
        Some(gva) => gva.to_string(),
        None => "-".to_owned(),
    };
    [
        row.gpa.to_string(),
        gva,
        row.hva.map_or("-".to_owned(), |hva| format!("{:#x}", hva.start)),
        size(row.size),
        row.rights.map_or("---".to_owned(), |rights| rights.to_string()),
        row.page_size.map_or("-".to_owned(), size),
        row.what.clone(),
    ]
}

fn line([gpa, gva, hva, size, rights, pages, what]: [String; 7]) -> String {
    format!("{gpa:25} {gva:15} {hva:14} {size:>12} {rights:6} {pages:6} {what}")
}
