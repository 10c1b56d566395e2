//! The console: the guest's bytes, all of them and nothing else.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{guest, patiently, probe, send, vmm_binary, vmm_run};

#[test]
fn an_access_of_two_or_four_bytes_prints_all_of_them() {
    assert_eq!(probe("print-sizes").run().succeeded(), "122444\n");
}

#[test]
fn reading_the_port_tells_that_the_console_is_there() {
    assert_eq!(probe("console-present").run().succeeded(), "true\n");
    assert_eq!(probe("console-present-wide").run().succeeded(), "e9e9e9e9\n");
}

#[test]
fn stdout_holds_the_guests_bytes_unchanged_and_nothing_else() {
    let output = Command::new(vmm_binary())
        .args(["run".as_ref(), guest("probe").as_os_str()])
        .args(["--", "print-bytes", "1000"])
        .output()
        .expect("the VMM starts");
    let expected: Vec<u8> = (0..1000).map(|number| number as u8).collect();
    assert_eq!(output.stdout, expected);
    assert!(output.stderr.is_empty());
}

#[test]
fn a_line_without_end_is_shown_when_the_guest_is_stopped() {
    let seen = vmm_run("probe", &["--timeout", "200ms", "--", "print-and-spin"]);
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(124), "still here"), "{seen:?}");
}

#[test]
fn a_line_without_end_is_shown_when_the_guest_dies() {
    let seen = vmm_run("probe", &["--", "print-and-fault"]);
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(102), "last words"), "{seen:?}");
}

/// Ways to print without end.
const FLOODS: [&[&str]; 4] =
    [&["print-bytes", "1000000000"], &["flood"], &["flood-coalesced"], &["flood-ring"]];

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    FLOODS.iter().for_each(|flood| reader_goes_away(flood));
}

fn reader_goes_away(flood: &[&str]) {
    let mut child = Command::new(vmm_binary())
        .args(["run".as_ref(), guest("probe").as_os_str()])
        .args(["--timeout", "20s", "--"])
        .args(flood)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the VMM starts");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 100]).expect("the guest prints");

    drop(stdout);

    let output = child.wait_with_output().expect("the VMM ends");
    assert_eq!(output.status.code(), Some(0), "{flood:?}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_reader_that_takes_nothing_holds_up_neither_time_limit_nor_ctrl_c() {
    for flood in FLOODS {
        for (limit, signal, code) in [("300ms", None, 124), ("20s", Some(libc::SIGINT), 130)] {
            let mut child = Command::new(vmm_binary())
                .args(["run".as_ref(), guest("probe").as_os_str()])
                .args(["--timeout", limit, "--"])
                .args(flood)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("the VMM starts");
            let unread = child.stdout.take();

            if let Some(signal) = signal {
                // Long enough to fill the pipe, except byte by byte.
                std::thread::sleep(patiently(Duration::from_millis(500)));
                send(&child, signal);
            }
            let start = Instant::now();
            let status = child.wait().expect("the VMM ends");

            assert_eq!(status.code(), Some(code), "{flood:?}");
            assert!(start.elapsed() < patiently(Duration::from_secs(2)), "{flood:?}: {:?}", start.elapsed());
            drop(unread);
        }
    }
}

#[test]
fn output_that_cannot_be_written_is_the_hosts_failure_whichever_way_it_came() {
    for deed in [&["println", "1"][..], &["println-raw"], &["ring-line"], &["coalesced-line"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
        let output = Command::new(vmm_binary())
            .args(["run".as_ref(), guest("probe").as_os_str()])
            .arg("--")
            .args(deed)
            .stdout(full)
            .output()
            .expect("the VMM starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(100), "{deed:?}: {stderr}");
        assert!(stderr.contains("No space left on device"), "{deed:?}: {stderr}");
    }
}
