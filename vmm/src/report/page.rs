//! `Page`: what the page of `vmm run --report` shows, as words and numbers; its looks are in `vmm/templates/report/`.
//!
//! Askama escapes whatever a field holds, as much of it is a guest's: names, text, marks. The data for programs lies
//! in the page too, as JSON in a `<script>`; there [`script_json`] keeps a guest from ending that element.

use askama::Template;
use serde::Serialize;

/// One self-contained page.
#[derive(Debug, Default, Template)]
#[template(path = "report/page.html")]
pub(super) struct Page {
    /// The guest program.
    pub(super) program: String,
    /// How the run ended, as a clause.
    pub(super) verdict: String,
    /// `good` or `bad`.
    pub(super) outcome: &'static str,
    pub(super) facts: Vec<Fact>,
    pub(super) map: Map,
    pub(super) tables: Tables,
    pub(super) exits: Exits,
    pub(super) timeline: Words,
    pub(super) registers: Registers,
    pub(super) answers: Answers,
    pub(super) footer: String,
    /// For programs: by [`script_json`].
    pub(super) data: String,
}

/// A value with its name, and what else is to be said of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Fact {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) note: String,
}

/// What stands above and below a drawing.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    pub(super) lead: String,
    /// What was left out.
    pub(super) note: String,
}

/// Guest memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    pub(super) lead: String,
    pub(super) note: String,
    /// What is wrong with the mappings.
    pub(super) findings: Vec<String>,
    pub(super) regions: Vec<Region>,
}

/// A region of guest memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Region {
    pub(super) name: String,
    /// Its colour: a class of `style.css`.
    pub(super) class: &'static str,
    /// `no` for what is in the table only: addresses without RAM, of which there are far more than others.
    pub(super) drawn: &'static str,
    pub(super) start: String,
    pub(super) bytes: u64,
    /// Where it is mapped; empty where it is not.
    pub(super) gva: String,
    pub(super) size: String,
    pub(super) rights: String,
    /// Its host-virtual address; empty without RAM.
    pub(super) hva: String,
    /// The line that decided it.
    pub(super) origin: String,
}

/// The tree of page tables, in the order in which it is drawn.
#[derive(Clone, Debug, Default)]
pub(super) struct Tables {
    pub(super) lead: String,
    pub(super) note: String,
    pub(super) steps: Vec<TreeStep>,
}

/// A step of drawing a tree.
#[derive(Clone, Debug)]
pub(super) enum TreeStep {
    /// An entry that leads to a table; what is in that table follows.
    Open(Branch),
    /// Entries that lead to no table.
    Leaf(Leaf),
    /// The end of the last table that was opened.
    Close,
}

/// An entry that leads to a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Branch {
    pub(super) entry: String,
    pub(super) gva: String,
    pub(super) leads: String,
    pub(super) note: String,
    /// Where the table lies, for looking up.
    pub(super) table: String,
    pub(super) open: bool,
}

/// Entries that map pages, or are wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    pub(super) entry: String,
    pub(super) gva: String,
    pub(super) leads: String,
    pub(super) rights: String,
    pub(super) note: String,
    pub(super) gva_start: String,
    pub(super) gpa_start: String,
    /// 0 where nothing is mapped.
    pub(super) bytes: u64,
    pub(super) wrong: bool,
}

/// Exits, added up in two ways.
#[derive(Clone, Debug, Default)]
pub(super) struct Exits {
    pub(super) lead: String,
    pub(super) note: String,
    pub(super) kinds: Vec<Kind>,
    pub(super) lines: Vec<Line>,
}

/// Exits of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Kind {
    pub(super) name: String,
    pub(super) class: &'static str,
    pub(super) count: String,
    pub(super) time: String,
    /// Of all exits.
    pub(super) percent: u64,
}

/// Exits of one line of the guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    pub(super) place: String,
    pub(super) function: String,
    pub(super) class: &'static str,
    pub(super) count: String,
    pub(super) time: String,
    pub(super) percent: u64,
}

/// Registers at two moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Registers {
    pub(super) lead: String,
    pub(super) rows: Vec<Register>,
}

/// A register at two moments.
#[derive(Clone, Debug, Default)]
pub(super) struct Register {
    pub(super) name: &'static str,
    pub(super) start: String,
    pub(super) stop: String,
    pub(super) meaning: String,
    pub(super) changed: bool,
}

/// What `vmm explain` answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) lead: String,
    pub(super) all: Vec<Answer>,
}

/// An answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) question: String,
    pub(super) facts: Vec<Fact>,
}

/// `value` as JSON that may stand in a `<script>`: what could end that element, or start a comment in it, is written
/// as `\u003c`, which means the same in JSON (HTML Standard, "Restrictions for contents of script elements").
///
/// # Errors
/// When `value` does not serialize.
pub(super) fn script_json(value: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    let mut safe = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            // These stand in JSON's strings only.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                safe.push_str(&format!("\\u{:04x}", u32::from(letter)))
            }
            letter => safe.push(letter),
        }
    }
    Ok(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "</script><script>alert(1)</script><!--\"'&\u{2028}<img src=x onerror=alert(1)>";

    #[test]
    fn what_a_guest_writes_ends_no_element() {
        let json = script_json(&EVIL).expect("text");
        assert!(!json.contains(['<', '>', '&', '\u{2028}']), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).expect("JSON"), EVIL, "and means the same");
    }

    #[test]
    fn every_field_is_escaped() {
        let evil = || EVIL.to_owned();
        let fact = || Fact { name: evil(), value: evil(), note: evil() };
        let region = Region {
            name: evil(),
            start: evil(),
            gva: evil(),
            size: evil(),
            rights: evil(),
            hva: evil(),
            origin: evil(),
            ..Region::default()
        };
        let branch =
            Branch { entry: evil(), gva: evil(), leads: evil(), note: evil(), table: evil(), open: true };
        let leaf = Leaf {
            entry: evil(),
            gva: evil(),
            leads: evil(),
            rights: evil(),
            note: evil(),
            gva_start: evil(),
            gpa_start: evil(),
            ..Leaf::default()
        };
        let page = Page {
            program: evil(),
            verdict: evil(),
            facts: vec![fact()],
            map: Map { lead: evil(), note: evil(), findings: vec![evil()], regions: vec![region] },
            tables: Tables {
                lead: evil(),
                note: evil(),
                steps: vec![TreeStep::Open(branch), TreeStep::Leaf(leaf), TreeStep::Close],
            },
            exits: Exits {
                lead: evil(),
                note: evil(),
                kinds: vec![Kind { name: evil(), time: evil(), ..Kind::default() }],
                lines: vec![Line { place: evil(), function: evil(), time: evil(), ..Line::default() }],
            },
            timeline: Words { lead: evil(), note: evil() },
            registers: Registers {
                lead: evil(),
                rows: vec![Register { start: evil(), stop: evil(), meaning: evil(), ..Register::default() }],
            },
            answers: Answers { lead: evil(), all: vec![Answer { question: evil(), facts: vec![fact()] }] },
            footer: evil(),
            data: script_json(&EVIL).expect("text"),
            ..Page::default()
        };
        let html = page.render().expect("a page");
        assert!(
            !html.contains("<img") && !html.contains("alert(1)</script>") && !html.contains("<!--"),
            "{html}"
        );
        assert_eq!(html.matches("</script>").count(), 2, "the page's own");
        assert!(html.matches("onerror=alert(1)").count() > 40, "all of it is there, as text");
    }
}
