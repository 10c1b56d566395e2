//! The console: the guest's bytes, all of them and nothing else.

use std::io::Read;
use std::process::{Command, Stdio};

use crate::harness::{guest, probe, vmm_binary, vmm_run};

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

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let mut child = Command::new(vmm_binary())
        .args(["run".as_ref(), guest("probe").as_os_str()])
        .args(["--timeout", "20s", "--", "print-bytes", "1000000000"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the VMM starts");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0; 100]).expect("the guest prints");

    drop(stdout);

    let output = child.wait_with_output().expect("the VMM ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
