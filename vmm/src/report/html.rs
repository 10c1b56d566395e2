//! `HtmlReport`: a run as one HTML file, for `vmm run --report`.
//!
//! Two halves: [`Recording`] is made before the run and watches it, [`HtmlReport`] is made from it behind. The file needs
//! no network and no other file. It has the same data as `vmm explain --json` and `vmm run --stats-json`, for programs,
//! in a `<script type="application/json">`. A guest decides how much there is to say; how much is said has limits, and
//! the page tells where it has reached one.

use askama::Template as _;
use serde::Serialize;

use super::exits::{self, exits, grouped, short};
use super::map::{self, MAX_ROWS};
use super::page::{Answer, Answers as AnswersCard, Fact, Page, script_json};
use super::registers::registers;
use super::{RunReport, page};
use crate::debug::{CpuState, Symbols};
use crate::error::Result;
use crate::explain::{Answers, MemoryMap, Moment, Scan, TableTree, When, size};
use crate::observe::{Observer, Sample, Sampled, Stats, Summary};
use crate::vm::Vm;

/// What must be known of a machine before it runs, and what watches it.
#[derive(Debug)]
pub struct Recording {
    start: CpuState,
    stats: Stats,
    sample: Sample,
}

impl Recording {
    /// A recording of a machine that is about to run.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm), when the registers cannot be read.
    pub fn start(vm: &Vm) -> Result<Self> {
        Ok(Self { start: vm.cpu_state()?, stats: Stats::new(vm), sample: Sample::new(vm) })
    }

    /// What watches the run.
    pub fn observer(&mut self) -> impl Observer + '_ {
        (&mut self.stats, &mut self.sample)
    }
}

/// A run as a page.
#[derive(Debug)]
pub struct HtmlReport {
    report: RunReport,
    answers: Answers,
    summary: Summary,
    sampled: Sampled,
    map: MemoryMap,
    map_is_cut: bool,
    tree: TableTree,
    scan: Scan,
    start: CpuState,
    stop: CpuState,
    symbols: Symbols,
}

/// The data in the page, for programs.
#[derive(Serialize)]
struct Data<'a> {
    version: u32,
    /// As `vmm explain --json`.
    explain: &'a Answers,
    /// As `vmm run --stats-json`.
    stats: &'a Summary,
    /// As `vmm map --at-stop --json`.
    map: &'a MemoryMap,
    tables: &'a TableTree,
    timeline: &'a Sampled,
}

/// Raised when a field of the data changes its meaning or goes.
const VERSION: u32 = 1;

impl HtmlReport {
    /// The page of a run that is over.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm), when the registers cannot be read.
    pub fn new(vm: &Vm, recording: Recording, answers: Answers, report: RunReport) -> Result<Self> {
        let (symbols, moment) = (vm.symbols(), Moment::of(vm, When::Stop)?);
        let mut map = MemoryMap::of(vm, When::Stop, false)?;
        let map_is_cut = map.rows.len() > MAX_ROWS;
        if map_is_cut {
            map.rows.truncate(MAX_ROWS);
            map.cut.get_or_insert(format!("there are more than {MAX_ROWS} rows: the others were left out"));
        }
        let mut summary = recording.stats.summary(&symbols);
        exits::cut(&mut summary);
        Ok(Self {
            report,
            answers,
            summary,
            sampled: recording.sample.finish(&symbols),
            map,
            map_is_cut,
            scan: moment.scan(vm),
            tree: TableTree::of(vm, moment),
            start: recording.start,
            stop: vm.cpu_state()?,
            symbols,
        })
    }

    /// The HTML file.
    #[must_use]
    pub fn render(&self) -> String {
        let is_good = self.report.is_unremarkable() && self.report.stop.process_exit_code() == 0;
        let page = Page {
            program: self.program(),
            verdict: self.report.to_string(),
            outcome: if is_good { "good" } else { "bad" },
            facts: self.facts(),
            map: map::map(&self.map, self.map_is_cut, self.answers.memory.size),
            tables: map::tables(&self.tree, &self.scan),
            exits: exits(&self.summary),
            timeline: exits::timeline(&self.sampled),
            registers: registers(&self.start, &self.stop, &self.symbols, &self.map),
            answers: self.answers_card(),
            footer: format!(
                "Written by vmm {}. This page is one file: it loads nothing and sends nothing.",
                env!("CARGO_PKG_VERSION")
            ),
            data: script_json(&self.data()).expect("numbers and strings are JSON"),
        };
        page.render().expect("writing to a String never fails")
    }

    fn data(&self) -> Data<'_> {
        Data {
            version: VERSION,
            explain: &self.answers,
            stats: &self.summary,
            map: &self.map,
            tables: &self.tree,
            timeline: &self.sampled,
        }
    }

    /// The image's name without its folders.
    fn program(&self) -> String {
        let path = std::path::Path::new(&self.answers.image);
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }

    fn facts(&self) -> Vec<page::Fact> {
        let fact = |name: &str, value: String, note: String| Fact { name: name.to_owned(), value, note };
        let total = &self.summary.total;
        let share = |ns: u64| format!("{} %", ns.saturating_mul(100) / total.ns().max(1));
        let busiest = self.summary.kinds.iter().max_by_key(|row| row.tally.exits);
        let busiest = busiest.map(|row| format!("{} of them {}", grouped(row.tally.exits), row.kind.word()));
        let [small, medium, large] = self.scan.pages;
        let at = self.symbols.frames(self.stop.rip());
        let function = at.first().and_then(|frame| frame.function.clone()).unwrap_or_default();
        let on = self.report.vcpu.map(|vcpu| format!(", on {vcpu}")).unwrap_or_default();
        vec![
            fact("Exits", grouped(total.exits), busiest.unwrap_or_default()),
            fact("Time in the guest", short(total.guest_ns), share(total.guest_ns)),
            fact("Time in the host", short(total.host_ns), share(total.host_ns)),
            fact(
                "RAM",
                size(self.answers.memory.size),
                format!("at HVA {:#x}", self.answers.memory.hva.start),
            ),
            fact(
                "Page tables",
                grouped(self.scan.tables.len() as u64),
                format!("{} pages mapped", grouped(small + medium + large)),
            ),
            fact("RIP at the end", self.stop.rip().to_string(), function + &on),
        ]
    }

    fn answers_card(&self) -> AnswersCard {
        let all = self.answers.sections().into_iter().map(|section| Answer {
            question: section.title,
            facts: section
                .facts
                .into_iter()
                .map(|fact| match fact.source {
                    Some(origin) => Fact {
                        name: fact.label.trim_end().to_owned(),
                        value: origin.to_string(),
                        note: fact.text,
                    },
                    None => {
                        Fact { name: fact.label.trim_end().to_owned(), value: fact.text, note: String::new() }
                    }
                })
                .collect(),
        });
        AnswersCard {
            lead: "What “vmm explain” answers, in the order of a machine's life; each step with the line of the host \
                   that did it."
                .to_owned(),
            all: all.collect(),
        }
    }
}
