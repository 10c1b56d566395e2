//! Files of snapshots: one that is damaged, cut, or of another machine is refused with the reason.

use shared_abi::{Gpa, Gva};
use vmm::snapshot::file::{FileError, repair_checksums};
use vmm::{Contract, Flat, KernelSource, Snapshot, Start, StartMode, Vm, VmConfig};

use crate::harness::kept::bytes_of;

/// The file of a machine as small as they come.
fn smallest_file() -> Vec<u8> {
    let mut config = VmConfig::new(KernelSource::Bytes([0xF4].as_slice().into()));
    config.start =
        Start { mode: StartMode::Real, flat: Some(Flat { load_at: Gpa(0x8000), entry: Gva(0x8000) }) };
    config.contract = Contract::None;
    config.memory = "2M".parse().expect("a size");
    let mut vm = Vm::build(config).expect("KVM");
    bytes_of(&vm.snapshot().expect("it has not started"))
}

/// What is wrong with a file of these bytes.
fn refused(bytes: &[u8]) -> FileError {
    match Snapshot::read_from(&mut { bytes }, bytes.len() as u64) {
        Err(error) => error,
        Ok(_) => panic!("it was read"),
    }
}

#[test]
fn a_file_cut_anywhere_is_refused_and_so_is_one_with_more_in_it() {
    let file = smallest_file();
    for size in 0..file.len() {
        let error = refused(&file[..size]);
        let is_right = match size {
            0 => matches!(error, FileError::NotASnapshot),
            _ => matches!(error, FileError::WrongSize { .. }),
        };
        assert!(is_right, "{size} bytes: {error}");
        // It may also become shorter while it is read.
        if size % 97 == 0 || size < 256 {
            let cut = Snapshot::read_from(&mut &file[..size], file.len() as u64);
            assert!(matches!(cut, Err(FileError::Read(_))), "{size} bytes: {cut:?}");
        }
    }
    assert!(matches!(refused(&[file.as_slice(), b"x"].concat()), FileError::WrongSize { .. }));
}

#[test]
fn a_file_with_a_flipped_bit_is_refused() {
    let file = smallest_file();
    for bit in (0..64 * 8).chain((64 * 8..file.len() * 8).step_by(101)) {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = refused(&damaged);
        let is_right = match bit / 8 {
            0..8 => matches!(error, FileError::NotASnapshot),
            8..12 => matches!(error, FileError::OtherVersion(_)),
            _ => matches!(error, FileError::Damaged(_)),
        };
        assert!(is_right, "bit {bit}: {error}");
    }
}

#[test]
fn a_file_of_another_cpu_or_of_no_machine_is_refused_with_the_reason() {
    let file = smallest_file();
    let altered = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len(), "sizes stay");
        let at = file.windows(from.len()).position(|window| window == from.as_bytes()).expect("it is there");
        let mut altered = file.clone();
        altered[at..at + to.len()].copy_from_slice(to.as_bytes());
        repair_checksums(&mut altered);
        refused(&altered).to_string()
    };
    let vendor = if file.windows(12).any(|window| window == b"AuthenticAMD") {
        altered("AuthenticAMD", "GenuineIntel")
    } else {
        altered("GenuineIntel", "AuthenticAMD")
    };
    assert!(vendor.contains("another CPU"), "{vendor}");
    for (from, to, complaint) in [
        ("\"memory\":2097152", "\"memory\":2097153", "not whole pages"),
        ("\"memory\":2097152", "\"memory\":1048576", "too little"),
        ("\"page_size\":2097152", "\"page_size\":2097153", "no pages of 2097153 bytes"),
        ("\"mode\":0", "\"mode\":9", "no mode 9"),
        ("\"stopped\":0", "\"stopped\":1", "vCPUs that it has not"),
        ("\"address_bits\"", "\"address_bots\"", "unknown field"),
    ] {
        let error = altered(from, to);
        assert!(error.contains(complaint), "{to}: {error}");
    }
}
