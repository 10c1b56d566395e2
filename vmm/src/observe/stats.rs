//! `Stats`: exits added up by line of the guest.
//!
//! While the guest runs, exits are added up by [`Site`], which is addresses only; [`Stats::summary`] makes lines of
//! them. A guest can make as many sites as it likes, so there is a limit, and beyond it exits are added up by kind.

use std::collections::HashMap;

use shared_abi::hypercall::{Answer, Registers};

use crate::cpus::VcpuId;
use crate::debug::Symbols;
use crate::exit::Exit;
use crate::next::Next;
use crate::observe::entry::{Entry, Kind, Site};
use crate::observe::instruction::Code;
use crate::observe::meter::{Closed, Meter};
use crate::observe::{ExitCounts, Handlers, Observer, Summary, Tally};
use crate::vcpu::Place;
use crate::vm::Vm;

/// The most places of a guest that are told apart. With them, stats take some 10 MiB.
pub const MAX_SITES: usize = 1 << 14;

/// Exits added up by line of the guest.
#[derive(Debug)]
pub struct Stats {
    meter: Meter,
    handlers: Handlers,
    counts: ExitCounts,
    sites: Sites,
}

impl Stats {
    /// Stats of a machine that is about to run.
    #[must_use]
    pub fn new(vm: &Vm) -> Self {
        Self {
            meter: Meter::new(vm, true),
            handlers: vm.handlers(),
            counts: ExitCounts::default(),
            sites: Sites { vcpus: vec![Tally::default(); vm.vcpu_count().get().into()], ..Sites::default() },
        }
    }

    /// The exits so far, with names and lines as far as `symbols` tell them.
    #[must_use]
    pub fn summary(&self, symbols: &Symbols) -> Summary {
        Summary::of(&self.sites, &self.counts, &self.handlers, symbols)
    }
}

impl Observer for Stats {
    fn needs_page_tables(&self) -> bool {
        true
    }

    fn on_vcpu(&mut self, vcpu: VcpuId) {
        self.meter.turn_to(vcpu);
    }

    fn on_entry(&mut self) {
        if let Some(closed) = self.meter.enter() {
            self.sites.add(&closed);
        }
    }

    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.counts.on_exit(exit, place);
        self.meter.exit(exit, place);
    }

    fn on_call(&mut self, call: &Registers, answer: Option<Answer>) {
        self.meter.call(call, answer);
    }

    fn on_answer(&mut self, next: &Next) {
        if let Some(closed) = self.meter.answer(next) {
            self.sites.add(&closed);
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

/// What was added up, by site. An exit of a known site takes no memory.
#[derive(Debug, Default)]
pub(super) struct Sites {
    /// Where in `known` a site is.
    index: HashMap<Site, usize>,
    known: Vec<Known>,
    /// The site that came last: in a loop it comes again, and then it is not looked up.
    last: usize,
    /// Exits of sites beyond the limit.
    rest: [Tally; Kind::ALL.len()],
    /// Exits of each vCPU.
    vcpus: Vec<Tally>,
}

/// A site, what was seen there first, and what has added up.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) site: Site,
    pub(super) code: Code,
    pub(super) tally: Tally,
}

impl Sites {
    fn add(&mut self, closed: &Closed<'_>) {
        let entry = closed.entry;
        self.tally_of(&entry.site, || closed.code()).add(entry);
        if let Some(own) = self.vcpus.get_mut(entry.vcpu.index()) {
            own.add(entry);
        }
    }

    fn tally_of(&mut self, site: &Site, code: impl FnOnce() -> Code) -> &mut Tally {
        if self.known.get(self.last).is_none_or(|known| known.site != *site) {
            match self.index.get(site) {
                Some(place) => self.last = *place,
                None if self.known.len() < MAX_SITES => self.learn(site, code()),
                None => return self.rest.get_mut(site.kind as usize).expect("every kind has its place"),
            }
        }
        &mut self.known.get_mut(self.last).expect("the last one is known").tally
    }

    fn learn(&mut self, site: &Site, code: Code) {
        self.last = self.known.len();
        self.index.insert(*site, self.last);
        self.known.push(Known { site: *site, code, tally: Tally::default() });
    }

    /// The sites, in the order in which they came first.
    pub(super) fn known(&self) -> &[Known] {
        &self.known
    }

    /// Exits by vCPU, where the machine has several.
    pub(super) fn by_vcpu(&self) -> impl Iterator<Item = (VcpuId, Tally)> {
        let has_several = self.vcpus.len() > 1;
        (0..).map_while(VcpuId::new).zip(self.vcpus.iter().copied()).filter(move |_| has_several)
    }

    /// Exits of sites that were too many, by kind.
    pub(super) fn rest(&self) -> impl Iterator<Item = (Kind, Tally)> {
        Kind::ALL.into_iter().map(|(kind, _)| kind).zip(self.rest).filter(|(_, tally)| tally.exits > 0)
    }
}

impl Tally {
    fn add(&mut self, entry: &Entry) {
        self.exits += 1;
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.guest_ns += entry.guest_ns;
        self.host_ns += entry.host_ns;
    }
}

#[cfg(test)]
mod tests {
    use shared_abi::Gva;

    use super::*;

    fn site(number: u64) -> Site {
        Site { kind: Kind::PioOut, rip: Some(Gva(number)), ..Site::default() }
    }

    #[test]
    fn equal_sites_add_up() {
        let mut sites = Sites::default();
        for number in [1, 2, 1, 1] {
            sites.tally_of(&site(number), Code::default).add(&Entry { bytes: 2, ..Entry::default() });
        }
        let tallies: Vec<_> =
            sites.known().iter().map(|known| (known.tally.exits, known.tally.bytes)).collect();
        assert_eq!(tallies, [(3, 6), (1, 2)]);
    }

    #[test]
    fn a_guest_that_exits_everywhere_takes_no_more_memory_and_loses_no_exit() {
        let mut sites = Sites::default();
        for number in 0..3 * MAX_SITES as u64 {
            sites.tally_of(&site(number), Code::default).add(&Entry::default());
        }
        assert_eq!((sites.known.len(), sites.index.len()), (MAX_SITES, MAX_SITES));
        let rest: Vec<_> = sites.rest().map(|(kind, tally)| (kind, tally.exits)).collect();
        assert_eq!(rest, [(Kind::PioOut, 2 * MAX_SITES as u64)]);
    }
}
