//! Machines that are kept and gone on from, and how they end.

use shared_abi::Gpa;
use vmm::debug::CpuState;
use vmm::exit::Exit;
use vmm::observe::{ExitCounts, Observer};
use vmm::snapshot::Surroundings;
use vmm::vcpu::Place;
use vmm::{Captured, Console, KernelSource, Snapshot, StopHandle, StopReason, Vm, VmConfig};

use super::{optimised_guest, probe, slowness};

/// A machine about to do `deed`, and what it prints.
pub(crate) fn machine(deed: &str, change: impl FnOnce(&mut VmConfig)) -> (Vm, Captured) {
    let (console, captured) = Console::capture();
    let mut config = probe(deed).config;
    config.kernel = KernelSource::File(optimised_guest("probe"));
    config.console = console;
    change(&mut config);
    (Vm::build(config).expect("the machine can be built"), captured)
}

/// All that a guest leaves behind.
pub(crate) struct End {
    pub(crate) stop: StopReason,
    state: Vec<CpuState>,
    memory: Vec<u8>,
}

impl End {
    pub(crate) fn of(vm: &mut Vm) -> Self {
        let stop = vm.run().expect("the host works").stop;
        let state = vm.vcpus().map(|vcpu| CpuState::of(vcpu).expect("registers")).collect();
        let mut memory = vec![0; vm.memory().size().bytes() as usize];
        vm.memory().read(Gpa(0), &mut memory).expect("all of it is RAM");
        Self { stop, state, memory }
    }

    /// Compares without printing all of RAM.
    #[track_caller]
    pub(crate) fn expect(&self, expected: &Self, who: &str) {
        assert_eq!((&self.stop, &self.state), (&expected.stop, &expected.state), "{who}");
        if self.memory != expected.memory {
            let differs = self.memory.iter().zip(&expected.memory).position(|(own, other)| own != other);
            panic!("{who}: RAM differs from {differs:x?} on");
        }
    }
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
pub(crate) fn run_to(vm: &mut Vm, exit: u64) {
    let mut pause = PauseAt { exit, handle: vm.stop_handle(), counts: ExitCounts::default() };
    let report = vm.run_observed(&mut pause).expect("the host works");
    assert_eq!(report.stop, StopReason::Paused, "at exit {exit}");
}

/// A new machine from `snapshot`, and what it prints.
pub(crate) fn spawn(snapshot: &Snapshot) -> (Vm, Captured) {
    let (console, captured) = Console::capture();
    let surroundings = Surroundings { console, ..Surroundings::default() };
    (snapshot.spawn(surroundings).expect("a machine like the first"), captured)
}

/// What stands in its file.
pub(crate) fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.write_to(&mut bytes).expect("memory");
    bytes
}

/// How many cases are tried: fewer where everything is slower.
pub(crate) fn cases(wanted: u32) -> u32 {
    (wanted / slowness().pow(2)).max(10)
}
