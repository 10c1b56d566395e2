//! Files of snapshots, as they are and with checksums that hold: what is in them is a stranger's all the same.

use vmm::snapshot::file::repair_checksums;
use vmm::{Contract, Flat, KernelSource, Snapshot, Start, StartMode, Surroundings, Vm, VmConfig};

use shared_abi::{Gpa, Gva};

pub(super) fn run(input: &[u8]) {
    read(input);
    let mut repaired = input.to_vec();
    repair_checksums(&mut repaired);
    read(&repaired);
}

fn read(mut file: &[u8]) {
    let size = file.len() as u64;
    // What KVM does not take is an error; what it takes is a machine, which is not run.
    let _ = Snapshot::read_from(&mut file, size)
        .map(|snapshot| snapshot.spawn(Surroundings::default()).map(drop));
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut file = Vec::new();
    let snapshot = smallest().and_then(|mut vm| vm.snapshot()).expect("a machine as small as they come");
    snapshot.write_to(&mut file).expect("memory");
    vec![file]
}

/// A machine in real mode, about to halt.
fn smallest() -> vmm::Result<Vm> {
    let place = 0x8000;
    let mut config = VmConfig::new(KernelSource::Bytes([0xF4].as_slice().into()));
    config.start =
        Start { mode: StartMode::Real, flat: Some(Flat { load_at: Gpa(place), entry: Gva(place) }) };
    config.contract = Contract::None;
    config.memory = "2M".parse().expect("a size");
    Vm::build(config)
}
