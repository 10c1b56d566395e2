//! `Meter`: makes an [`Entry`] of each exit.
//!
//! It reads the clock twice an exit, and the guest's chain of callers once, into memory that it owns already. What
//! CR3 was is in `kvm_run` (`Vcpu::tell_page_tables`), so the chain is read through the tables that the guest uses at
//! this exit: nothing is remembered that a guest could have changed meanwhile.

use std::sync::Arc;
use std::time::Instant;

use shared_abi::hypercall::{Answer, Registers};

use crate::exit::Exit;
use crate::guest_space::GuestSpace;
use crate::memory::GuestMemory;
use crate::next::Next;
use crate::observe::entry::Entry;
use crate::observe::instruction::Code;
use crate::vcpu::Place;

/// What it knows of the exit that is being answered, and where its clock started.
#[derive(Debug)]
pub(super) struct Meter {
    memory: Arc<GuestMemory>,
    reads_callers: bool,
    start: Option<Instant>,
    /// When the guest was entered last, in nanoseconds since the first entry.
    entered_ns: u64,
    entry: Entry,
    place: Option<Place>,
    /// Whether `entry` holds an exit that is being answered.
    is_open: bool,
}

/// An exit that was answered, while the guest is still where it left.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed<'a> {
    /// The exit.
    pub(super) entry: &'a Entry,
    place: Option<Place>,
    memory: &'a GuestMemory,
}

impl Closed<'_> {
    /// The bytes around RIP.
    pub(super) fn code(&self) -> Code {
        match self.place {
            Some(place @ Place { page_tables: Some(cr3), .. }) => {
                Code::read(&GuestSpace::with_page_tables(self.memory, cr3), place.rip)
            }
            _ => Code::default(),
        }
    }
}

impl Meter {
    /// A meter for a machine with this memory.
    pub(super) fn new(memory: Arc<GuestMemory>, reads_callers: bool) -> Self {
        Self {
            memory,
            reads_callers,
            start: None,
            entered_ns: 0,
            entry: Entry::default(),
            place: None,
            is_open: false,
        }
    }

    /// The guest is about to be entered. Gives the exit that was answered before.
    pub(super) fn enter(&mut self) -> Option<Closed<'_>> {
        let now = self.now();
        self.entered_ns = now;
        self.close(now)
    }

    /// The guest has left.
    pub(super) fn exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        let now = self.now();
        self.entry.number += 1;
        self.entry.entered_ns = self.entered_ns;
        self.entry.guest_ns = now.saturating_sub(self.entered_ns);
        self.entry.host_ns = 0;
        self.entry.describe(exit);
        self.entry.site.rip = place.map(|place| place.rip);
        self.place = place;
        if self.reads_callers {
            match place {
                Some(place) => self.entry.site.callers.read(&self.memory, place),
                None => self.entry.site.callers = Default::default(),
            }
        }
        self.is_open = true;
    }

    /// The exit was a hypercall, and this became of it.
    pub(super) fn call(&mut self, call: &Registers, answer: Option<Answer>) {
        self.entry.describe_call(call, answer);
    }

    /// The exit was answered. Gives it when the run is over, and nobody enters again.
    pub(super) fn answer(&mut self, next: &Next) -> Option<Closed<'_>> {
        if *next == Next::Resume {
            return None;
        }
        let now = self.now();
        self.close(now)
    }

    fn close(&mut self, now: u64) -> Option<Closed<'_>> {
        if !std::mem::take(&mut self.is_open) {
            return None;
        }
        self.entry.host_ns = now.saturating_sub(self.entry.left_ns());
        Some(Closed { entry: &self.entry, place: self.place, memory: &self.memory })
    }

    /// Nanoseconds since the first entry; 64 bits of them are five centuries.
    pub(super) fn now(&mut self) -> u64 {
        let now = Instant::now();
        let since = now.saturating_duration_since(*self.start.get_or_insert(now));
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
