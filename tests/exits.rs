//! What the run loop takes for an exit beside KVM_RUN: nothing. No memory, and no other system call.
//!
//! The same machine makes so many exits, and twice as many; what it takes for them must be the same. The guest's half is
//! `guest-kernel/src/bin/bench.rs`, with the devices that every machine has. Where answers of calls are kept
//! (`vmm/src/hypercall/journal.rs`, on `kvm_amd`), their list doubles once in either run.

use std::process::Command;

use vmm::Vm;
use vmm::exit::Exit;
use vmm::observe::{ExitCounts, Observer};
use vmm::vcpu::Place;

use crate::harness::system_calls::{self, SystemCall};
use crate::harness::{allocations, boot, guest, vmm_binary};

/// The number of one kind.
type Count = fn(&ExitCounts) -> u64;

/// The exits, as the guest names them, and their number.
const KINDS: [(&str, Count); 5] = [
    ("out", |exits| exits.pio_out),
    ("in", |exits| exits.pio_in),
    ("mmio-write", |exits| exits.mmio_write),
    ("mmio-read", |exits| exits.mmio_read),
    ("calls", |exits| exits.hypercall),
];

#[test]
fn no_exit_takes_memory() {
    for (what, count) in KINDS {
        let of_some = allocations_of(what, MANY, count, &mut ExitCounts::default());
        let of_twice_as_many = allocations_of(what, 2 * MANY, count, &mut ExitCounts::default());
        assert_eq!(of_some, of_twice_as_many, "{what}");
    }
}

#[test]
fn memory_that_an_exit_takes_is_counted() {
    for (what, count) in KINDS {
        let of_some = allocations_of(what, MANY, count, &mut Hoarder::default());
        let of_twice_as_many = allocations_of(what, 2 * MANY, count, &mut Hoarder::default());
        assert_eq!(of_twice_as_many - of_some, MANY, "{what}");
    }
}

#[test]
fn no_exit_makes_a_system_call_but_kvm_run() {
    for (what, _) in KINDS {
        let (entries_of_some, others) = system_calls_of(what, FEW, &[]);
        assert_eq!(others.first(), None, "{what}: {} such calls", others.len());
        let (entries_of_twice_as_many, others) = system_calls_of(what, 2 * FEW, &[]);
        assert_eq!(others.first(), None, "{what}: {} such calls", others.len());
        assert_eq!(entries_of_twice_as_many - entries_of_some, FEW, "{what}");
    }
}

#[test]
fn a_system_call_that_an_exit_makes_is_counted() {
    for (what, _) in KINDS {
        let (entries, others) = system_calls_of(what, FEW, &["--trace"]);
        let is_write = |call: &&SystemCall| call.number == libc::SYS_write;
        let lines = others.iter().filter(is_write).count() as u64;
        assert!((FEW..=entries).contains(&lines), "{what}: {lines} lines of a trace, {entries} entries");
    }
}

/// As many as the console keeps of a line without an end: the first run makes room for it, and no later one does.
const MANY: u64 = 4096;
/// So few that twice as many writes of 8 bytes are kept, too: the loop is looked at, not the guest's text being shown.
const FEW: u64 = 200;

/// How often a machine takes memory for a run, its second, in which its guest does `what` so `often`.
fn allocations_of(what: &str, often: u64, count: Count, observer: &mut impl Observer) -> u64 {
    let mut vm = Vm::build(boot("bench").arguments(&[what, &often.to_string()]).config)
        .expect("the machine can be built: is /dev/kvm there?");
    vm.run().expect("the host can do its work");
    let before = allocations::taken();
    let report = vm.run_observed(observer).expect("the host can do its work");
    let taken = allocations::taken() - before;
    assert!((often..=often + 1).contains(&count(&report.exits)), "{what}: {report}: {:?}", report.exits);
    taken
}

/// Takes memory at each exit.
#[derive(Default)]
struct Hoarder {
    kept: Option<Box<u64>>,
    exits: ExitCounts,
}

impl Observer for Hoarder {
    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.exits.on_exit(exit, place);
        self.kept = Some(Box::new(self.exits.total()));
    }

    fn counts(&self) -> &ExitCounts {
        &self.exits
    }
}

/// What the `vmm` program calls from its first entry to its last, while its guest does `what` so `often`: the number of
/// entries, and all else.
fn system_calls_of(what: &str, often: u64, options: &[&str]) -> (u64, Vec<SystemCall>) {
    let mut program = Command::new(vmm_binary());
    program.arg("run").args(options).arg(guest("bench")).args(["--", what, &often.to_string()]);
    let calls = system_calls::of(program);
    let enters = SystemCall::enters_a_guest;
    let first = calls.iter().position(enters).expect("it enters");
    let last = calls.iter().rposition(enters).expect("it enters");
    let (entries, others): (Vec<_>, Vec<_>) = calls[first..=last].iter().partition(|call| enters(call));
    assert!(entries.len() as u64 > often, "{what}: {} entries", entries.len());
    (entries.len() as u64, others)
}
