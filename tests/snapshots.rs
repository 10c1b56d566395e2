//! Snapshots: whoever goes on from one does what a run does that nobody disturbs.

use std::hash::{DefaultHasher, Hash, Hasher};

use shared_abi::Gpa;
use vmm::debug::CpuState;
use vmm::exit::Exit;
use vmm::observe::{ExitCounts, Observer};
use vmm::snapshot::Surroundings;
use vmm::vcpu::Place;
use vmm::{Captured, Console, KernelSource, Snapshot, StopHandle, StopReason, Vm, VmConfig};

use crate::harness::{optimised_guest, probe};

/// A machine about to do `deed`, and what it prints.
fn machine(deed: &str, change: impl FnOnce(&mut VmConfig)) -> (Vm, Captured) {
    let (console, captured) = Console::capture();
    let mut config = probe(deed).config;
    config.kernel = KernelSource::File(optimised_guest("probe"));
    config.console = console;
    change(&mut config);
    (Vm::build(config).expect("the machine can be built"), captured)
}

/// All that a guest leaves behind.
#[derive(Debug, PartialEq)]
struct End {
    stop: StopReason,
    state: Vec<CpuState>,
    memory: u64,
}

impl End {
    fn of(vm: &mut Vm) -> Self {
        let stop = vm.run().expect("the host works").stop;
        let state = vm.vcpus().map(|vcpu| CpuState::of(vcpu).expect("registers")).collect();
        Self { stop, state, memory: hash(vm) }
    }
}

fn hash(vm: &Vm) -> u64 {
    let mut bytes = vec![0; vm.memory().size().bytes() as usize];
    vm.memory().read(Gpa(0), &mut bytes).expect("all of it is RAM");
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Asks for a pause at an exit: the run ends when that is answered.
struct PauseAt {
    exit: u64,
    handle: StopHandle,
    counts: ExitCounts,
}

impl Observer for PauseAt {
    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.counts.on_exit(exit, place);
        if self.counts.total() == self.exit {
            self.handle.pause();
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

/// Runs until so many exits are answered.
fn run_to(vm: &mut Vm, exit: u64) {
    let mut pause = PauseAt { exit, handle: vm.stop_handle(), counts: ExitCounts::default() };
    let report = vm.run_observed(&mut pause).expect("the host works");
    assert_eq!(report.stop, StopReason::Paused, "at exit {exit}");
}

/// A new machine from `snapshot`, and what it prints.
fn spawn(snapshot: &Snapshot) -> (Vm, Captured) {
    let (console, captured) = Console::capture();
    let surroundings = Surroundings { console, ..Surroundings::default() };
    (snapshot.spawn(surroundings).expect("a machine like the first"), captured)
}

#[test]
fn who_goes_on_from_a_snapshot_does_what_the_undisturbed_run_does() {
    let (mut undisturbed, printed) = machine("wander 7 60", |_| {});
    let mut counts = ExitCounts::default();
    let stop = undisturbed.run_observed(&mut counts).expect("the host works").stop;
    assert_eq!(stop, StopReason::Exited { code: 0 }, "{}", printed.text());
    let text = printed.bytes();
    let (mut undisturbed, _) = machine("wander 7 60", |_| {});
    let expected = End::of(&mut undisturbed);

    for exit in 1..counts.total() {
        let (mut vm, printed) = machine("wander 7 60", |_| {});
        run_to(&mut vm, exit);
        let snapshot = vm.snapshot().expect("it stands");
        let before = printed.bytes();

        assert_eq!(End::of(&mut vm), expected, "the original, from exit {exit}");
        assert_eq!(printed.bytes(), text);

        vm.restore(&snapshot).expect("it is its own");
        assert_eq!(End::of(&mut vm), expected, "in place, from exit {exit}");
        let rest = text.get(before.len()..).expect("no more than all");
        assert_eq!(printed.bytes(), [&text, rest].concat());

        let (mut other, printed) = spawn(&snapshot);
        assert_eq!(End::of(&mut other), expected, "a new machine, from exit {exit}");
        assert_eq!(printed.bytes(), rest);
    }
}
