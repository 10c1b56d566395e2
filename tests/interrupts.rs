//! Interrupt controllers: who has them, and what the host does with its lines. The accomplice is
//! `guest-kernel/src/bin/probe_interrupts.rs`.

use std::time::Duration;

use vmm::{Interrupts, StopReason};

use crate::harness::{Boot, boot, vmm_run};

/// The accomplice, about to do `deed`.
fn accomplice(deed: &str) -> Boot {
    boot("probe_interrupts").arguments(&deed.split(' ').collect::<Vec<_>>())
}

#[test]
fn only_a_program_that_uses_interrupts_has_controllers() {
    assert!(!boot("01_hello").run().vm.machine().has_interrupts());
    assert!(!boot("probe").arguments(&["return"]).run().vm.machine().has_interrupts());
    assert!(accomplice("list").run().vm.machine().has_interrupts());
}

#[test]
fn a_sleeping_guest_goes_on_when_it_is_time_and_not_before() {
    let console = accomplice("sleep 30").run().succeeded();
    let slept: u64 = console.trim().parse().expect("microseconds");
    assert!(slept >= 30_000, "{slept}");
}

#[test]
fn a_sleep_exits_to_nobody() {
    let finished = accomplice("sleep 5").run();
    let exits = finished.report.exits;
    // Kicks are signals of this process, and no doing of the guest.
    assert_eq!((exits.hypercall, exits.pio_out, exits.total() - exits.interrupted), (1, 1, 2), "{exits:?}");
}

#[test]
fn where_there_are_no_controllers_a_sleep_looks_at_the_clock_and_takes_as_long() {
    let finished = accomplice("sleep 30").with(|config| config.interrupts = Interrupts::Off).run();
    assert!(!finished.vm.machine().has_interrupts());
    let slept: u64 = finished.succeeded().trim().parse().expect("microseconds");
    assert!(slept >= 30_000, "{slept}");
}

#[test]
fn a_guest_that_needs_controllers_and_has_none_says_so() {
    let seen = vmm_run("probe_interrupts", &["--interrupts", "off", "--", "wait"]);
    assert_eq!(seen.code, Some(101), "{seen:?}");
    assert!(seen.stderr.contains("this machine has no interrupt controllers"), "{seen:?}");
}

#[test]
fn a_guest_that_waits_for_nothing_is_stopped_by_its_time_limit() {
    let limit = Duration::from_millis(300);
    for deed in ["wait", "halt"] {
        let finished = accomplice(deed).with(|config| config.timeout = Some(limit)).run();
        finished.stopped_by(&StopReason::TimedOut { limit });
    }
}
