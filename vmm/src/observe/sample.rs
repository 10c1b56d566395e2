//! `Sample`: the beginning and the end of a run, exit by exit, in memory that a guest cannot make larger.
//!
//! What [`Timeline`](crate::observe::Timeline) writes to a file as it happens, this keeps, for a page that is made when
//! the run is over. Of a run with more exits than it keeps, the middle is left out.

use std::collections::{HashMap, VecDeque};

use serde::{Serialize, Serializer, ser::SerializeTuple};
use shared_abi::hypercall::{Answer, Registers};

use crate::cpus::VcpuId;
use crate::debug::Symbols;
use crate::exit::Exit;
use crate::log::LogRecord;
use crate::next::Next;
use crate::observe::entry::{Kind, Site};
use crate::observe::instruction::{self, Code};
use crate::observe::lines::Lines;
use crate::observe::meter::{Closed, Meter};
use crate::observe::table::{place, what};
use crate::observe::{ExitCounts, Handlers, Mark, Observer};
use crate::vcpu::Place;
use crate::vm::Vm;

/// Exits that are kept of the beginning, and as many of the end.
pub const MAX_EXITS: usize = 4000;
/// Places of a guest that are named.
const MAX_SITES: usize = 1000;
/// Spans and log records that are kept.
const MAX_EVENTS: usize = 500;
/// Letters of a guest's text that are kept.
const MAX_TEXT: usize = 120;

/// Keeps the beginning and the end of a run.
#[derive(Debug)]
pub struct Sample {
    meter: Meter,
    handlers: Handlers,
    counts: ExitCounts,
    /// Whose turn it is.
    vcpu: VcpuId,
    kept: Kept,
}

/// What is kept.
#[derive(Debug, Default)]
struct Kept {
    index: HashMap<(VcpuId, Site), usize>,
    sites: Vec<(VcpuId, Site, Code)>,
    first: Vec<SampledExit>,
    last: VecDeque<SampledExit>,
    total: u64,
    end_ns: u64,
    /// The spans that are open, of each vCPU.
    open: Vec<Open>,
    spans: Vec<Span>,
    log: Vec<(u64, String)>,
}

/// The spans that a vCPU is in.
#[derive(Clone, Debug, Default)]
struct Open {
    /// What its call has marked that is being answered.
    mark: Option<Mark>,
    /// Where they are in `spans`; `None` is one that is not kept.
    spans: Vec<Option<usize>>,
    /// Spans that are deeper than can be kept.
    deeper: u64,
}

/// The beginning and the end of a run, as data.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Sampled {
    /// When the last exit was answered, in nanoseconds since the first entry.
    pub end_ns: u64,
    /// How many exits there were.
    pub total: u64,
    /// How many of them, in the middle, are not in `exits`.
    pub left_out: u64,
    /// The kinds of all exits that are.
    pub kinds: Vec<Kind>,
    /// What the guest turned to and where, for each place of the guest.
    pub sites: Vec<String>,
    /// The exits, in order.
    pub exits: Vec<SampledExit>,
    /// Spans that the guest has named, the first of them.
    pub spans: Vec<Span>,
    /// Log records of the guest, the first of them, and when they came.
    pub log: Vec<(u64, String)>,
}

/// An exit, as a list of five numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampledExit {
    /// Its number, from 1.
    pub number: u64,
    /// When the guest left.
    pub left_ns: u64,
    /// Nanoseconds in the host.
    pub host_ns: u64,
    /// Where in [`Sampled::kinds`] its kind is.
    pub kind: usize,
    /// Where in [`Sampled::sites`] its place is; behind the end when that is not known.
    pub site: usize,
}

impl Serialize for SampledExit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_tuple(5)?;
        list.serialize_element(&self.number)?;
        list.serialize_element(&self.left_ns)?;
        list.serialize_element(&self.host_ns)?;
        list.serialize_element(&self.kind)?;
        list.serialize_element(&self.site)?;
        list.end()
    }
}

/// A span that a guest has named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Its name, cut when it is long.
    pub name: String,
    /// When it began.
    pub start_ns: u64,
    /// When it ended; `None` when it did not.
    pub end_ns: Option<u64>,
    /// How many spans are around it.
    pub depth: usize,
}

impl Sample {
    /// A sample of a machine that is about to run.
    #[must_use]
    pub fn new(vm: &Vm) -> Self {
        Self {
            meter: Meter::new(vm, true),
            handlers: vm.handlers(),
            counts: ExitCounts::default(),
            vcpu: VcpuId::FIRST,
            kept: Kept { open: vec![Open::default(); vm.vcpu_count().get().into()], ..Kept::default() },
        }
    }

    /// What was kept, with names and lines as far as `symbols` tell them.
    #[must_use]
    pub fn finish(self, symbols: &Symbols) -> Sampled {
        let Self { handlers, kept, .. } = self;
        let usual = kept.sites.iter().find_map(|(_, _, code)| code.shows());
        let has_several = kept.open.len() > 1;
        let mut lines = Lines::default();
        let name = |(vcpu, site, code): &(VcpuId, Site, Code)| {
            let lined = lines.of(site, instruction::address(site, code, usual), symbols);
            let what = what(site.kind, &site.target.to_string(), handlers.name(site.target));
            let on = if has_several { format!(" on {vcpu}") } else { String::new() };
            format!("{what}{on}, by {}", short(&place(lined.caller.as_ref(), lined.instruction.as_ref())))
        };
        let sites = kept.sites.iter().map(name).collect();
        let mut exits: Vec<_> = kept.first.into_iter().chain(kept.last).collect();
        let mut kinds: Vec<usize> = exits.iter().map(|exit| exit.kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for exit in &mut exits {
            exit.kind = kinds.binary_search(&exit.kind).expect("its kind is among them");
        }
        Sampled {
            end_ns: kept.end_ns,
            total: kept.total,
            left_out: kept.total - exits.len() as u64,
            kinds: kinds.iter().filter_map(|kind| Kind::ALL.get(*kind)).map(|(kind, _)| *kind).collect(),
            sites,
            exits,
            spans: kept.spans,
            log: kept.log,
        }
    }
}

impl Kept {
    fn add(&mut self, closed: &Closed<'_>) {
        let entry = closed.entry;
        let mark = self.open(entry.vcpu).mark.take();
        let exit = SampledExit {
            number: entry.number,
            left_ns: entry.left_ns(),
            host_ns: entry.host_ns,
            kind: entry.site.kind as usize,
            site: self.site(closed),
        };
        self.total += 1;
        self.end_ns = exit.left_ns + exit.host_ns;
        if self.first.len() < MAX_EXITS {
            self.first.push(exit);
        } else {
            if self.last.len() == MAX_EXITS {
                self.last.pop_front();
            }
            self.last.push_back(exit);
        }
        match mark {
            Some(Mark::Begin(name)) => self.begin(entry.vcpu, &name),
            Some(Mark::End) => self.end(entry.vcpu, exit.left_ns),
            None => {}
        }
    }

    /// The number of the place that an exit came from.
    fn site(&mut self, closed: &Closed<'_>) -> usize {
        let (vcpu, site) = (closed.entry.vcpu, &closed.entry.site);
        match self.index.get(&(vcpu, *site)) {
            Some(known) => *known,
            None if self.sites.len() < MAX_SITES => {
                let number = self.sites.len();
                self.sites.push((vcpu, *site, closed.code()));
                self.index.insert((vcpu, *site), number);
                number
            }
            None => MAX_SITES,
        }
    }

    fn open(&mut self, vcpu: VcpuId) -> &mut Open {
        self.open.get_mut(vcpu.index()).expect("every vCPU of the machine has its spans")
    }

    fn begin(&mut self, vcpu: VcpuId, name: &str) {
        let is_kept = self.spans.len() < MAX_EVENTS;
        let place = is_kept.then_some(self.spans.len());
        let has_several = self.open.len() > 1;
        let open = self.open(vcpu);
        if open.spans.len() >= MAX_EVENTS {
            open.deeper += 1;
            return;
        }
        open.spans.push(place);
        let depth = open.spans.len() - 1;
        if is_kept {
            let name = if has_several { short(&format!("{vcpu}: {name}")) } else { short(name) };
            self.spans.push(Span { name, start_ns: self.end_ns, end_ns: None, depth });
        }
    }

    fn end(&mut self, vcpu: VcpuId, at_ns: u64) {
        let open = self.open(vcpu);
        if open.deeper > 0 {
            open.deeper -= 1;
            return;
        }
        let place = open.spans.pop().flatten();
        if let Some(span) = place.and_then(|place| self.spans.get_mut(place)) {
            span.end_ns = Some(at_ns);
        }
    }
}

/// A guest's text, cut when it is long.
fn short(text: &str) -> String {
    let cut: String = text.chars().take(MAX_TEXT).collect();
    if cut.len() < text.len() { cut + "…" } else { cut }
}

impl Observer for Sample {
    fn needs_page_tables(&self) -> bool {
        true
    }

    fn on_vcpu(&mut self, vcpu: VcpuId) {
        self.meter.turn_to(vcpu);
        self.vcpu = vcpu;
    }

    fn on_entry(&mut self) {
        if let Some(closed) = self.meter.enter() {
            self.kept.add(&closed);
        }
    }

    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.counts.on_exit(exit, place);
        self.meter.exit(exit, place);
    }

    fn on_call(&mut self, call: &Registers, answer: Option<Answer>) {
        self.meter.call(call, answer);
    }

    fn on_log(&mut self, record: &LogRecord) {
        if self.kept.log.len() < MAX_EVENTS {
            let now = self.meter.now();
            self.kept.log.push((now, short(&record.to_string())));
        }
    }

    fn on_mark(&mut self, mark: &Mark) {
        self.kept.open(self.vcpu).mark = Some(mark.clone());
    }

    fn on_answer(&mut self, next: &Next) {
        if let Some(closed) = self.meter.answer(next) {
            self.kept.add(&closed);
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_lie_in_each_other_and_end_in_their_order() {
        let mut kept = Kept { end_ns: 10, open: vec![Open::default()], ..Kept::default() };
        kept.begin(VcpuId::FIRST, "outer");
        kept.end_ns = 20;
        kept.begin(VcpuId::FIRST, "inner");
        kept.end(VcpuId::FIRST, 30);
        kept.end(VcpuId::FIRST, 40);
        kept.end(VcpuId::FIRST, 50);
        let seen: Vec<_> = kept.spans.iter().map(|span| (span.start_ns, span.end_ns, span.depth)).collect();
        assert_eq!(seen, [(10, Some(40), 0), (20, Some(30), 1)]);
    }

    #[test]
    fn a_guest_that_opens_spans_without_end_takes_no_more_memory() {
        let mut kept = Kept { open: vec![Open::default()], ..Kept::default() };
        let name = "x".repeat(MAX_TEXT + 1);
        for _ in 0..10 * MAX_EVENTS {
            kept.begin(VcpuId::FIRST, &name);
        }
        assert_eq!((kept.open[0].spans.len(), kept.spans.len()), (MAX_EVENTS, MAX_EVENTS));
        assert_eq!(kept.spans[0].name.chars().count(), MAX_TEXT + 1, "the last letter says that it was cut");
        for _ in 0..9 * MAX_EVENTS {
            kept.end(VcpuId::FIRST, 7);
        }
        assert_eq!(
            kept.spans.iter().filter(|span| span.end_ns.is_some()).count(),
            0,
            "those that are not kept"
        );
        kept.end(VcpuId::FIRST, 8);
        assert_eq!(kept.spans[MAX_EVENTS - 1].end_ns, Some(8));
    }
}
