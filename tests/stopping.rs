//! Stopping guests from outside: time limits, signals, other threads.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vmm::{StopReason, StopRequest};

use crate::harness::{Seen, guest, patiently, probe, send, vmm_binary, vmm_run};

/// What is promised between the wish and the end, and what a loaded machine may add to it.
const PROMPT: Duration = Duration::from_millis(100);
const NOISE: Duration = Duration::from_millis(400);

#[test]
fn a_time_limit_stops_a_spinning_guest_and_says_where_it_was() {
    let start = Instant::now();
    let seen = vmm_run("probe", &["--timeout", "300ms", "--", "spin"]);
    let elapsed = start.elapsed();

    assert_eq!(seen.code, Some(124), "{seen:?}");
    assert!(
        seen.stderr.contains("300ms, in probe::ends::spin at guest-kernel/src/bin/probe/ends.rs:"),
        "{seen:?}"
    );
    assert!(elapsed < Duration::from_millis(300) + patiently(PROMPT + NOISE), "{elapsed:?}");
}

#[test]
fn a_time_limit_that_is_not_reached_costs_no_time() {
    let start = Instant::now();
    let finished = probe("return").run();
    assert!(start.elapsed() < patiently(Duration::from_secs(2)));
    finished.succeeded();
}

#[test]
fn ctrl_c_and_sigterm_stop_a_spinning_guest_and_say_where_it_was() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let child = spinning_guest();

        let start = Instant::now();
        send(&child, signal);
        let seen = Seen::from(child.wait_with_output().expect("the VMM ends"));
        let elapsed = start.elapsed();

        assert_eq!((seen.code, seen.stdout.as_str()), (Some(130), "still here"), "{seen:?}");
        assert!(seen.stderr.contains("interrupted, in probe::ends::"), "{seen:?}");
        assert!(elapsed < patiently(PROMPT + NOISE), "{elapsed:?}");
    }
}

/// A VMM whose guest has printed and now spins.
fn spinning_guest() -> Child {
    let child = Command::new(vmm_binary())
        .args(["run".as_ref(), guest("probe").as_os_str()])
        .args(["--timeout", "20s", "--", "print-and-spin"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the VMM starts");
    // The guest prints no line end, so there is nothing to wait for; it needs some milliseconds.
    std::thread::sleep(patiently(Duration::from_millis(300)));
    child
}

#[test]
fn another_thread_can_stop_a_machine() {
    let (console, _captured) = vmm::Console::capture();
    let mut vm = vmm::Vm::build(probe("spin").with(|config| config.console = console).config).expect("KVM");
    let handle = vm.stop_handle();
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        handle.stop(StopRequest::Interrupt);
    });

    let report = vm.run().expect("the host works");

    stopper.join().expect("the thread only sleeps and stops");
    assert_eq!(report.stop, StopReason::Interrupted);
}

#[test]
fn a_wish_to_stop_made_before_the_run_is_not_lost() {
    let mut vm = vmm::Vm::build(probe("spin").config).expect("KVM");
    vm.stop_handle().stop(StopRequest::Interrupt);
    assert_eq!(vm.run().expect("the host works").stop, StopReason::Interrupted);
}

#[test]
fn no_stop_is_lost_however_it_falls() {
    for delay_us in (0..2000).step_by(20) {
        let mut vm = vmm::Vm::build(probe("spin").config).expect("KVM");
        let handle = vm.stop_handle();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(delay_us));
            handle.stop(StopRequest::Interrupt);
        });
        let report = vm.run().expect("the host works");
        stopper.join().expect("the thread only sleeps and stops");
        // A lost one would end in the harness's time limit instead.
        assert_eq!(report.stop, StopReason::Interrupted, "{delay_us} µs");
    }
}
