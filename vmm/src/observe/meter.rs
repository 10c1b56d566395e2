//! `Meter`: makes an [`Entry`] of each exit.
//!
//! It reads the clock twice an exit, and the guest's chain of callers once, into memory that it owns already. What
//! CR3 was is in `kvm_run` (`Vcpu::tell_page_tables`), so the chain is read through the tables that the guest uses at
//! this exit: nothing is remembered that a guest could have changed meanwhile.
//!
//! While one vCPU's exit is answered, another may leave the guest. So each has its own [`Turn`], and what follows an exit
//! is added to that of the vCPU whose turn it is. Exits are numbered as they come, whoever makes them.

use std::sync::Arc;
use std::time::Instant;

use shared_abi::hypercall::{Answer, Registers};

use crate::cpus::VcpuId;
use crate::exit::Exit;
use crate::guest_space::GuestSpace;
use crate::memory::GuestMemory;
use crate::next::Next;
use crate::observe::entry::Entry;
use crate::observe::instruction::Code;
use crate::vcpu::Place;
use crate::vm::Vm;

/// What it knows of the exits that are being answered, and where its clock started.
#[derive(Debug)]
pub(super) struct Meter {
    memory: Arc<GuestMemory>,
    reads_callers: bool,
    start: Option<Instant>,
    /// Exits so far.
    exits: u64,
    /// Whose turn it is.
    vcpu: VcpuId,
    /// One for each vCPU.
    turns: Vec<Turn>,
}

/// A vCPU between one entry and the next.
#[derive(Clone, Debug, Default)]
struct Turn {
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
    /// A meter for a machine that is about to run.
    pub(super) fn new(vm: &Vm, reads_callers: bool) -> Self {
        Self {
            memory: vm.memory().clone(),
            reads_callers,
            start: None,
            exits: 0,
            vcpu: VcpuId::FIRST,
            turns: vec![Turn::default(); vm.vcpu_count().get().into()],
        }
    }

    /// It is this vCPU's turn.
    pub(super) fn turn_to(&mut self, vcpu: VcpuId) {
        self.vcpu = vcpu;
    }

    fn turn(&mut self) -> &mut Turn {
        self.turns.get_mut(self.vcpu.index()).expect("every vCPU of the machine has its turn")
    }

    /// The guest is about to be entered. Gives the exit that was answered before.
    pub(super) fn enter(&mut self) -> Option<Closed<'_>> {
        let now = self.now();
        self.turn().entered_ns = now;
        self.close(now)
    }

    /// The guest has left.
    pub(super) fn exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        let now = self.now();
        self.exits += 1;
        let Self { memory, reads_callers, exits, vcpu, turns, .. } = self;
        let turn = turns.get_mut(vcpu.index()).expect("every vCPU of the machine has its turn");
        let entry = &mut turn.entry;
        (entry.number, entry.vcpu) = (*exits, *vcpu);
        entry.entered_ns = turn.entered_ns;
        entry.guest_ns = now.saturating_sub(turn.entered_ns);
        entry.host_ns = 0;
        entry.describe(exit);
        entry.site.rip = place.map(|place| place.rip);
        if *reads_callers {
            match place {
                Some(place) => entry.site.callers.read(memory, place),
                None => entry.site.callers = Default::default(),
            }
        }
        (turn.place, turn.is_open) = (place, true);
    }

    /// The exit was a hypercall, and this became of it.
    pub(super) fn call(&mut self, call: &Registers, answer: Option<Answer>) {
        self.turn().entry.describe_call(call, answer);
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
        let Self { memory, vcpu, turns, .. } = self;
        let turn = turns.get_mut(vcpu.index())?;
        if !std::mem::take(&mut turn.is_open) {
            return None;
        }
        turn.entry.host_ns = now.saturating_sub(turn.entry.left_ns());
        Some(Closed { entry: &turn.entry, place: turn.place, memory })
    }

    /// Nanoseconds since the first entry; 64 bits of them are five centuries.
    pub(super) fn now(&mut self) -> u64 {
        let now = Instant::now();
        let since = now.saturating_duration_since(*self.start.get_or_insert(now));
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
