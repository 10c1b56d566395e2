//! Guests that die: the rights of the first page tables hold, and each death is named.

use shared_abi::Gpa;
use vmm::StopReason;

use crate::harness::{probe, vmm_run};

#[test]
fn what_must_not_be_touched_faults() {
    for deed in [
        "read-null",
        "write-null",
        "write-rodata",
        "write-text",
        "write-boot-info",
        "write-stack-guard",
        "execute-stack",
        "overflow-stack",
        "read-beyond-ram",
    ] {
        let finished = probe(deed).run();
        assert_eq!(finished.report.stop, StopReason::TripleFault, "{deed}: {}", finished.console);
    }
}

#[test]
fn a_triple_fault_is_102() {
    let seen = vmm_run("probe", &["--", "read-null"]);
    assert_eq!(seen.code, Some(102));
    assert!(seen.stderr.starts_with("vmm: the guest died of a triple fault"), "{seen:?}");
}

#[test]
fn a_port_without_device_is_named_with_what_was_written() {
    let written = StopReason::UnclaimedPort { port: 0x1234, size: 2, written: Some(0xABCD) };
    probe("unclaimed-port-out").run().stopped_by(&written);
    let read = StopReason::UnclaimedPort { port: 0x60, size: 1, written: None };
    probe("unclaimed-port-in").run().stopped_by(&read);
}

#[test]
fn an_access_behind_a_mapping_to_nowhere_is_named_by_its_address() {
    let finished = probe("write-hole").run();
    let expected = StopReason::UnclaimedMmio { gpa: Gpa(0xC010_0000), size: 8, written: Some(0x1122) };
    finished.stopped_by(&expected);
}
