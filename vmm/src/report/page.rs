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
    /// [`Marks`], by [`script_json`].
    pub(super) marks: String,
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
    pub(super) regions: Vec<Region>,
}

/// A region of guest memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Region {
    pub(super) name: String,
    /// Its colour: a class of `style.css`.
    pub(super) class: &'static str,
    pub(super) start: u64,
    pub(super) bytes: u64,
    pub(super) from: String,
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
    pub(super) count: u64,
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
    pub(super) count: u64,
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

/// What the timeline draws: `script.js` reads it.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Marks {
    /// The end of the run, in nanoseconds since the first entry.
    pub(super) end_ns: u64,
    pub(super) lanes: Vec<Lane>,
    /// When the guest left and how long the host took, in nanoseconds; the lane; what is to be said of it.
    pub(super) exits: Vec<(u64, u64, usize, String)>,
}

/// A row of the timeline.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) class: &'static str,
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
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => safe.push_str(&format!("\\u{:04x}", u32::from(letter))),
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
        let region = Region { name: evil(), from: evil(), size: evil(), rights: evil(), hva: evil(), origin: evil(), ..Region::default() };
        let branch = Branch { entry: evil(), gva: evil(), leads: evil(), note: evil(), table: evil(), open: true };
        let leaf = Leaf { entry: evil(), gva: evil(), leads: evil(), rights: evil(), note: evil(), gva_start: evil(), gpa_start: evil(), ..Leaf::default() };
        let page = Page {
            program: evil(),
            verdict: evil(),
            facts: vec![fact()],
            map: Map { lead: evil(), note: evil(), regions: vec![region] },
            tables: Tables { lead: evil(), note: evil(), steps: vec![TreeStep::Open(branch), TreeStep::Leaf(leaf), TreeStep::Close] },
            exits: Exits {
                lead: evil(),
                note: evil(),
                kinds: vec![Kind { name: evil(), time: evil(), ..Kind::default() }],
                lines: vec![Line { place: evil(), function: evil(), time: evil(), ..Line::default() }],
            },
            timeline: Words { lead: evil(), note: evil() },
            registers: Registers { lead: evil(), rows: vec![Register { start: evil(), stop: evil(), meaning: evil(), ..Register::default() }] },
            answers: Answers { lead: evil(), all: vec![Answer { question: evil(), facts: vec![fact()] }] },
            footer: evil(),
            data: script_json(&EVIL).expect("text"),
            marks: script_json(&Marks { exits: vec![(0, 0, 0, evil())], ..Marks::default() }).expect("marks"),
            ..Page::default()
        };
        let html = page.render().expect("a page");
        assert!(!html.contains("<img") && !html.contains("alert(1)</script>") && !html.contains("<!--"), "{html}");
        assert_eq!(html.matches("</script>").count(), 3, "the page's own");
        assert!(html.matches("onerror=alert(1)").count() > 40, "all of it is there, as text");
    }

    #[test]
    fn demo() {
        let f = |n: &str, v: &str, o: &str| Fact { name: n.into(), value: v.into(), note: o.into() };
        let mut regions = vec![];
        for (name, class, start, end, rights, origin) in [
            ("null page", "guard", 0u64, 0x1000u64, "---", "vmm/src/boot/guest_map.rs:60"),
            ("boot info", "boot", 0x1000, 0x2000, "r--", "vmm/src/boot/guest_map.rs:61"),
            ("arguments", "arguments", 0x2000, 0x10000, "r--", "vmm/src/boot/guest_map.rs:62"),
            ("free", "free", 0x10000, 0x3f000, "rw-", "vmm/src/boot/guest_map.rs:63"),
            ("stack guard", "guard", 0x3f000, 0x40000, "---", "vmm/src/boot/guest_map.rs:64"),
            ("stack", "stack", 0x40000, 0x80000, "rw-", "vmm/src/boot/guest_map.rs:65"),
            ("page tables", "tables", 0x80000, 0x100000, "rw-", "vmm/src/boot/guest_map.rs:66"),
            (".text", "image", 0x100000, 0x11c000, "r-x", "vmm/src/boot/kernel.rs:112"),
            (".rodata", "rodata", 0x11c000, 0x124000, "r--", "vmm/src/boot/kernel.rs:112"),
            (".data .bss", "data", 0x124000, 0x127000, "rw-", "vmm/src/boot/kernel.rs:112"),
            ("free", "free", 0x127000, 0x1000000, "rw-", "vmm/src/boot/guest_map.rs:70"),
        ] {
            regions.push(Region { name: name.into(), class, start, bytes: end - start, from: format!("{start:#x}"), size: format!("{} KiB", (end - start) >> 10), rights: rights.into(), hva: format!("{:#x}", 0x7f3a_2000_0000u64 + start), origin: origin.into() });
        }
        let mut steps = vec![
            TreeStep::Open(Branch { entry: "CR3".into(), gva: "0x0..0x1000000000000".into(), leads: "→ PML4 at 0x80000".into(), note: "1 entry present".into(), table: "0x80000".into(), open: true }),
            TreeStep::Open(Branch { entry: "PML4[0]".into(), gva: "0x0..0x8000000000".into(), leads: "→ PDPT at 0x81000".into(), note: "1 entry present".into(), table: "0x81000".into(), open: true }),
            TreeStep::Open(Branch { entry: "PDPT[0]".into(), gva: "0x0..0x40000000".into(), leads: "→ PD at 0x82000".into(), note: "8 entries present".into(), table: "0x82000".into(), open: true }),
            TreeStep::Open(Branch { entry: "PD[0]".into(), gva: "0x0..0x200000".into(), leads: "→ PT at 0x83000".into(), note: "510 entries present".into(), table: "0x83000".into(), open: false }),
        ];
        for (a, b, r) in [(1u64, 0x10u64, "r--"), (0x10, 0x3f, "rw-"), (0x40, 0x100, "rw-"), (0x100, 0x11c, "r-x"), (0x11c, 0x124, "r--"), (0x124, 0x200, "rw-")] {
            steps.push(TreeStep::Leaf(Leaf { entry: format!("PT[{}..{}]", a, b - 1), gva: format!("{:#x}..{:#x}", a << 12, b << 12), leads: format!("→ {:#x}", a << 12), rights: r.into(), note: format!("{} pages of 4 KiB", b - a), gva_start: format!("{:#x}", a << 12), gpa_start: format!("{:#x}", a << 12), bytes: (b - a) << 12, wrong: false }));
        }
        steps.push(TreeStep::Close);
        steps.push(TreeStep::Leaf(Leaf { entry: "PD[1..7]".into(), gva: "0x200000..0x1000000".into(), leads: "→ 0x200000".into(), rights: "rw-".into(), note: "7 pages of 2 MiB".into(), gva_start: "0x200000".into(), gpa_start: "0x200000".into(), bytes: 0xe00000, wrong: false }));
        steps.extend([TreeStep::Close, TreeStep::Close, TreeStep::Close]);
        let lanes = vec![Lane { name: "pio-out", class: "e-out" }, Lane { name: "hypercall", class: "e-call" }, Lane { name: "mmio-write", class: "e-mmio" }];
        let mut exits = vec![];
        let mut t = 200_000u64;
        for i in 0..1400u64 {
            let lane = if i % 37 == 0 { 1 } else if i > 900 && i < 1000 { 2 } else { 0 };
            let took = 3_000 + (i * 7919) % 9_000 + if lane == 1 { 40_000 } else { 0 };
            exits.push((t, took, lane as usize, format!("Exit {}: port 0xe9 by println_raw at guest-kernel/src/console.rs:{}", i + 1, 40 + i % 9)));
            t += took + 2_000 + (i * 104_729) % 30_000;
        }
        let page = Page {
            program: "01_hello".into(), verdict: "the guest ended with exit code 0".into(), outcome: "good",
            facts: vec![f("Exits", "1,400", "1,262 writes to ports"), f("Time in the guest", "21.4 ms", "61 %"), f("Time in the host", "13.9 ms", "39 %"), f("RAM", "16 MiB", "7 regions"), f("Page tables", "4", "517 pages mapped"), f("RIP at the end", "0x101f3c", "power::exit")],
            map: Map { lead: "16 MiB of RAM, each region with what the guest may do there and the line of the host that decided it.".into(), note: String::new(), regions },
            tables: Tables { lead: "What CR3 leads to: 4 tables that map 517 pages. Entries side by side that differ in nothing else are one row.".into(), note: String::new(), steps },
            exits: Exits { lead: "1,400 exits: each is a way out of the guest, an answer by the host, and a way in again.".into(), note: String::new(),
                kinds: vec![Kind { name: "pio-out".into(), class: "e-out", count: 1262, time: "9.2 ms".into(), percent: 90 }, Kind { name: "mmio-write".into(), class: "e-mmio", count: 99, time: "1.3 ms".into(), percent: 7 }, Kind { name: "hypercall".into(), class: "e-call", count: 39, time: "2.1 ms".into(), percent: 3 }],
                lines: vec![Line { place: "guest-kernel/src/bin/01_hello.rs:26".into(), function: "01_hello::main".into(), class: "e-out", count: 1262, time: "9.2 ms".into(), percent: 90 }, Line { place: "guest-kernel/src/device_memory.rs:40".into(), function: "guest_kernel::channel::MmioConsole::write".into(), class: "e-mmio", count: 99, time: "1.3 ms".into(), percent: 7 }] },
            timeline: Words { lead: "When the guest left, and how long the host took each time.".into(), note: "The first 1,000 and the last 400 of 1,000,000 exits are drawn.".into() },
            registers: Registers { lead: "Changed values are marked.".into(), rows: vec![Register { name: "RIP", start: "0x100000".into(), stop: "0x101f3c".into(), meaning: "power::exit at guest-kernel/src/power.rs:12".into(), changed: true }, Register { name: "RSP", start: "0x80000".into(), stop: "0x7ffa8".into(), meaning: "in the stack".into(), changed: true }, Register { name: "CR3", start: "0x80000".into(), stop: "0x80000".into(), meaning: "page tables".into(), changed: false }] },
            answers: Answers { lead: "What vmm explain answers.".into(), all: vec![Answer { question: "Where is guest memory?".into(), facts: vec![f("size", "16777216", ""), f("host address", "0x7f3a20000000..0x7f3a21000000", ""), f("mapped at", "vmm/src/memory.rs:253", "")] }] },
            footer: "Written by vmm 0.1.0".into(),
            data: "{}".into(),
            marks: script_json(&Marks { end_ns: t, lanes, exits }).unwrap(),
        };
        std::fs::write("/tmp/demo.html", page.render().unwrap()).unwrap();
    }
}
