//! User mode: thousands of processes, programs made by chance, and what the host says of a CPU in ring 3. The accomplice
//! is `guest-kernel/src/bin/probe_user.rs`; what a process may do is tested in guests, in `guest-kernel/tests/user/`.

use std::time::Duration;

use vmm::{Input, KernelSource, StopReason};

use crate::harness::{Boot, boot, optimised_guest, patiently};

/// The accomplice, about to do `deed`.
fn accomplice(deed: &str) -> Boot {
    let mut boot = boot("probe_user").arguments(&deed.split(' ').collect::<Vec<_>>());
    boot.config.kernel = KernelSource::File(optimised_guest("probe_user"));
    boot
}

/// The numbers of a line.
fn numbers(line: &str) -> Vec<u64> {
    line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn a_thousand_processes_leave_no_frame_and_no_byte_behind() {
    let limit = patiently(Duration::from_secs(300));
    let console = accomplice("starts 1000").with(|config| config.timeout = Some(limit)).run().succeeded();
    let [died, frames, frames_after, bytes, bytes_after] = numbers(&console)[..] else {
        panic!("{console}");
    };
    assert_eq!((died, frames, bytes), (500, frames_after, bytes_after), "{console}");
}

#[test]
fn no_program_made_by_chance_ends_the_kernel() {
    let limit = patiently(Duration::from_secs(300));
    let console = accomplice("chance 200").with(|config| config.timeout = Some(limit)).run().succeeded();
    let [exited, died, stuck, out_of_time, frames, frames_after] = numbers(&console)[..] else {
        panic!("{console}");
    };
    assert_eq!(exited + died + stuck + out_of_time, 399, "{console}");
    assert_eq!(frames, frames_after, "{console}");
    assert!(exited > 20 && died > 20, "chance has become poor: {console}");
}

#[test]
fn a_process_waits_for_typing_with_the_whole_machine() {
    let console = accomplice("types").with(|config| config.input = Input::bytes("hello\n")).run();
    assert_eq!(console.succeeded(), "hello\nprocess 1 (types) exited with 6\n");
}

#[test]
fn a_program_that_never_ends_is_stopped_where_it_is() {
    let limit = patiently(Duration::from_millis(1000));
    let finished = accomplice("spins").with(|config| config.timeout = Some(limit)).run();
    finished.stopped_by(&StopReason::TimedOut { limit });
    let diagnosis = finished.vm.diagnose(&finished.report);
    let told = "the CPU was in user mode (ring 3, CS 0x33): RIP is outside of the image";
    assert!(diagnosis.facts.iter().any(|fact| fact.starts_with(told)), "{diagnosis}");
    assert!(diagnosis.facts.iter().any(|fact| fact.contains("it spins at 0x8000100000")), "{diagnosis}");
}
