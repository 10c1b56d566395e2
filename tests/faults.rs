//! Guests that die: the rights of the first page tables hold, and each death is named.

use shared_abi::{ExceptionFrame, Gpa, Gva, Vector, layout};
use vmm::StopReason;

use crate::harness::{probe, vmm_run};

/// Deeds, and the page fault that each of them is: its address, where that is known before.
const PAGE_FAULTS: [(&str, Option<u64>); 8] = [
    ("read-null", Some(8)),
    ("write-null", Some(8)),
    ("write-rodata", None),
    ("write-text", None),
    ("write-boot-info", Some(layout::BOOT_INFO.0)),
    ("write-stack-guard", Some(layout::STACK_GUARD.0)),
    ("execute-stack", Some(layout::STACK.0)),
    ("read-beyond-ram", Some(0x7000_0000)),
];

#[test]
fn what_must_not_be_touched_is_a_page_fault_at_its_address() {
    for (deed, address) in PAGE_FAULTS {
        let frame = exception(deed);
        assert_eq!(frame.vector(), Some(Vector::PageFault), "{deed}");
        assert!(address.is_none_or(|address| frame.cr2 == address), "{deed}: {frame:x?}");
    }
}

#[test]
fn every_exception_is_told_with_its_vector_and_where_it_was() {
    for (deed, vector) in [
        ("divide-by-zero", Vector::DivideError),
        ("invalid-opcode", Vector::InvalidOpcode),
        ("read-non-canonical", Vector::GeneralProtection),
        ("read-null", Vector::PageFault),
    ] {
        let finished = probe(deed).run();
        let StopReason::Exception(frame) = &finished.report.stop else {
            panic!("{deed}: {}", finished.report)
        };
        assert_eq!(frame.vector(), Some(vector), "{deed}");
        assert_eq!(finished.report.rip, Some(Gva(frame.rip)));
        let (image, stack) = (finished.vm.map().image(), layout::STACK.0..layout::STACK_END.0);
        assert!((image.start..image.end).contains(&frame.rip), "{deed}: {frame:x?}");
        assert!(stack.contains(&frame.rsp) && stack.contains(&frame.rbp), "{deed}: {frame:x?}");
        assert_eq!(finished.report.exits.total(), 1, "{deed}: the call that tells it");
    }
}

#[test]
fn a_stack_that_runs_out_is_a_double_fault_in_its_guard() {
    let frame = exception("overflow-stack");
    let guard = layout::STACK_GUARD.0..layout::STACK.0;
    assert_eq!(frame.vector(), Some(Vector::DoubleFault));
    assert!(guard.contains(&frame.cr2), "{frame:x?}");
}

#[test]
fn without_a_table_of_handlers_every_exception_is_a_triple_fault() {
    let others = ["overflow-stack", "divide-by-zero", "invalid-opcode", "read-non-canonical"];
    for deed in PAGE_FAULTS.iter().map(|(deed, _)| *deed).chain(others) {
        probe(&format!("without-idt {deed}")).run().stopped_by(&StopReason::TripleFault);
    }
}

/// The exception that the probe dies of.
#[track_caller]
fn exception(deed: &str) -> ExceptionFrame {
    let finished = probe(deed).run();
    match &finished.report.stop {
        StopReason::Exception(frame) => **frame,
        _ => panic!("{deed}: {}\n{}", finished.report, finished.console),
    }
}

#[test]
fn an_exception_is_102_and_so_is_a_triple_fault() {
    for deed in [&["read-null"][..], &["without-idt", "read-null"]] {
        let seen = vmm_run("probe", &[&["--"], deed].concat());
        assert_eq!(seen.code, Some(102), "{seen:?}");
        assert!(seen.stderr.starts_with("vmm: the guest died: #PF: read of 0x8"), "{seen:?}");
    }
}

#[test]
fn an_exception_that_no_cpu_has_is_told_as_such() {
    let seen = vmm_run("probe", &["--", "false-frame"]);
    assert_eq!(seen.code, Some(102));
    let told = "the guest died: vector 255: an interrupt";
    assert!(seen.stderr.contains(told), "{seen:?}");
}

#[test]
fn a_frame_that_is_nowhere_is_an_answer() {
    assert_eq!(probe("no-frame").run().succeeded(), "Err(BadAddress)\n".repeat(5));
}

#[test]
fn without_a_contract_an_exception_is_told_as_a_panic() {
    let seen = vmm_run("probe", &["--no-contract", "--", "read-null"]);
    assert_eq!(seen.code, Some(101), "{seen:?}");
    assert!(seen.stdout.contains("the CPU raised #PF (page fault) at 0x8; RIP was 0x1"), "{seen:?}");
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
