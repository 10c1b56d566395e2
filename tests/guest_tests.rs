//! In-guest tests, and whether those that are broken are told from those that hold.
//!
//! The broken ones are `guest-kernel/tests/failing.rs`. Cargo builds them only when asked to, as here.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use xtask::guest;
use xtask::workspace;

use crate::harness::tree::read;
use crate::harness::workspace_copy::WorkspaceCopy;
use crate::harness::{Seen, guest as program, vmm, vmm_binary};

const SOURCE: &str = "guest-kernel/tests/failing.rs";

fn failing() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| guest::build_tests("failing").expect("the failing tests build"))
}

/// `vmm test` of the failing tests, with these options.
fn test(options: &[&str]) -> Seen {
    Seen::of(Command::new(vmm_binary()).arg("test").arg(failing()).args(options))
}

/// The place of a failing test, as its failure should name it: the line of the attribute.
fn place(name: &str) -> String {
    let source = read(SOURCE);
    let function = source.lines().position(|line| line.starts_with(&format!("fn {name}("))).expect(name);
    // Lines count from 1, and the attribute stands before the function.
    format!("{SOURCE}:{function}: ")
}

#[track_caller]
fn fails(name: &str, complaint: &str) -> Seen {
    let seen = test(&["--exact", name]);
    assert_eq!(seen.code, Some(101), "{seen:?}");
    assert!(seen.stdout.contains(&format!("{}{complaint}\n", place(name))), "{}", seen.stdout);
    assert!(seen.stdout.contains("test result: FAILED. 0 passed; 1 failed"), "{}", seen.stdout);
    seen
}

#[test]
fn a_wrong_assertion_shows_console_report_and_its_own_line() {
    let seen = fails("wrong_assertion", "the guest panicked, but should have returned");
    let assertion = read(SOURCE).lines().position(|line| line.contains("assert_eq!(1 + 1, 3)")).expect("it");
    for part in [
        &format!("panicked at {SOURCE}:{}:5:", assertion + 1),
        "console:\nso far so good\n",
        "report: the guest panicked; RIP 0x",
        "2 hypercall",
        "-- wrong_assertion",
    ] {
        assert!(seen.stdout.contains(part), "{part} in {}", seen.stdout);
    }
}

#[test]
fn a_panic_that_did_not_come_is_a_failure() {
    fails("forgotten_panic", "the guest ended with exit code 0, but should have panicked");
}

#[test]
fn another_panic_is_a_failure() {
    fails("other_panic", "the console does not hold \"this one\"");
}

#[test]
fn a_returned_error_is_a_failure_and_shown() {
    let seen = fails("returned_error", "the guest panicked, but should have returned");
    assert!(seen.stdout.contains("the test returned Err(\"a reason\")"), "{}", seen.stdout);
}

#[test]
fn another_exit_code_is_a_failure() {
    fails("wrong_exit_code", "the guest ended with exit code 8, but should have ended with exit code 7");
}

#[test]
fn an_exit_too_many_is_a_failure() {
    fails("too_many_exits", "the test took 2 exits, but at most 1 is allowed");
}

#[test]
fn an_instruction_too_many_is_a_failure() {
    let seen = test(&["--exact", "too_many_instructions"]);
    assert_eq!(seen.code, Some(101), "{seen:?}");
    let complaint = format!("{}the test executed ", place("too_many_instructions"));
    let line = seen.stdout.lines().find_map(|line| line.strip_prefix(&complaint)).expect(&seen.stdout);
    let count: u64 = line.split(' ').next().and_then(|count| count.parse().ok()).expect(line);
    assert!(line.ends_with(" instructions, but at most 100 are allowed"), "{line}");
    // A hundred rounds of a loop that was not optimised, and little else.
    assert!((200..20_000).contains(&count), "{count}");
}

#[test]
fn an_endless_loop_is_stopped_at_its_own_time_limit() {
    let seen =
        fails("endless_loop", "the guest was stopped after its time limit of 50ms, but should have returned");
    assert!(seen.stdout.contains("; RIP 0x"), "{}", seen.stdout);
}

#[test]
fn a_fault_that_was_survived_is_a_failure() {
    fails("survived_fault", "the guest ended with exit code 0, but should have died of an exception");
}

#[test]
fn a_fault_that_nobody_wanted_is_a_failure() {
    let complaint = "the guest died of #PF (page fault) at 0x8, but should have returned";
    let seen = fails("unwanted_fault", complaint);
    assert!(seen.stdout.contains("report: the guest died of #PF (page fault) at 0x8; RIP 0x1"), "{seen:?}");
    let diagnosis =
        "\nthe guest died: #PF: read of 0x8, page 0: null dereference, in guest_kernel::cpu::provoke::";
    assert!(seen.stdout.contains(diagnosis) && seen.stdout.contains("\nbacktrace:\n"), "{}", seen.stdout);
}

#[test]
fn another_fault_than_the_wanted_one_is_a_failure() {
    for (name, complaint) in [
        (
            "other_fault",
            "the guest died of #GP (general protection), but should have died of #PF (page fault)",
        ),
        (
            "fault_elsewhere",
            "the guest died of #PF (page fault) at 0x10, but should have died of #PF (page fault) at 0x8",
        ),
        ("triple_fault", "the guest died of a triple fault, but should have died of #UD (invalid opcode)"),
    ] {
        fails(name, complaint);
    }
}

#[test]
fn the_list_is_read_without_running_anything() {
    let seen = test(&["--list"]);
    assert_eq!((seen.code, seen.stdout.lines().count()), (Some(0), 15), "{seen:?}");
    assert!(seen.stdout.contains("wrong_assertion: test\n") && !seen.stdout.contains("so far"), "{seen:?}");
    let seen = test(&["--list", "--ignored"]);
    assert_eq!(seen.stdout, "ignored_failure: test\n");
}

#[test]
fn filters_leave_what_they_name() {
    for (options, result) in [
        (&["wrong", "--skip", "code", "--list"][..], "wrong_assertion: test\n"),
        (&["the_one"], "test the_one_that_holds ... ok\n"),
        (&["ignored"], "test ignored_failure ... ignored\n"),
        (&["ignored", "--include-ignored"], "test ignored_failure ... FAILED\n"),
        (&["--exact", "wrong"], "running 0 tests\n"),
    ] {
        let seen = test(options);
        assert!(seen.stdout.contains(result), "{options:?}: {}", seen.stdout);
    }
}

#[test]
fn the_console_is_shown_when_asked_for() {
    let seen = test(&["too_many_exits", "--nocapture", "--test-threads", "1"]);
    let (before, _) = seen.stdout.split_once("FAILED").expect("it fails");
    assert!(before.contains("one\ntwo\n"), "{}", seen.stdout);
}

#[test]
fn json_has_an_event_for_every_test() {
    let seen = test(&["wrong", "--format", "json"]);
    let events: Vec<serde_json::Value> =
        seen.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let failed = |event: &&serde_json::Value| event["type"] == "test" && event["event"] == "failed";
    let failures: Vec<_> = events.iter().filter(failed).collect();
    assert_eq!(failures.len(), 2, "{events:#?}");
    let told = failures.iter().find(|event| event["name"] == "wrong_exit_code").expect("it failed");
    let text = told["stdout"].as_str().expect("a text");
    assert!(text.contains(&place("wrong_exit_code")), "{text}");
}

#[test]
fn junit_has_a_case_for_every_test() {
    let folder = tempfile::tempdir().expect("a folder");
    test(&["--skip", "endless_loop", "--junit", folder.path().to_str().expect("UTF-8")]);
    let xml = fs::read_to_string(folder.path().join("failing.xml")).expect("written");
    assert!(xml.contains("<testsuite name=\"failing\""), "{xml}");
    assert!(xml.contains(r#"tests="14" failures="12" errors="0" skipped="1""#), "{xml}");
    let case = format!(r#"name="wrong_assertion" file="{SOURCE}" line=""#);
    assert!(xml.contains(&case), "{xml}");
    assert!(xml.contains(&format!("<failure message=\"{}", place("wrong_assertion"))), "{xml}");
}

#[test]
fn a_test_is_run_again_by_its_name_alone() {
    let image = failing().to_str().expect("UTF-8");
    let seen = vmm(&["run", image, "--", "wrong_exit_code"]);
    assert_eq!(seen.code, Some(8), "{seen:?}");
    let seen = vmm(&["run", image, "--", "nonesuch"]);
    assert!(seen.stdout.contains("no test `nonesuch`"), "{seen:?}");
    let seen = vmm(&["run", image]);
    assert!(seen.stdout.contains("wrong_exit_code\n"), "{seen:?}");
}

#[test]
fn a_program_has_no_list_of_tests() {
    let program = program("01_hello");
    let seen = vmm(&["test", program.to_str().expect("UTF-8")]);
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(seen.stderr.contains("it has no list of tests"), "{seen:?}");
}

#[test]
fn a_list_that_leads_nowhere_is_refused_in_a_sentence() {
    let mut bytes = fs::read(failing()).expect("it was built");
    // The second note: name of 5 bytes, two words, type 2. Its first word is where the list starts.
    let note = [5, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0, b'D', b'u', b'e', b't'];
    let start = bytes.windows(note.len()).position(|window| window == note).expect("the note") + 20;
    bytes[start..start + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), bytes).expect("writable");
    let seen = vmm(&["test", file.path().to_str().expect("UTF-8")]);
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(seen.stderr.contains("where the file has none"), "{seen:?}");
}

#[test]
fn two_hundred_tests_have_two_hundred_machines() {
    let image = guest::build_tests("two_hundred").expect("they build");
    let seen = Seen::of(Command::new(vmm_binary()).arg("test").arg(image));
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.stdout.contains("test result: ok. 200 passed; 0 failed"), "{}", seen.stdout);
}

#[test]
fn plain_cargo_runs_the_tests_of_the_host_here_and_those_of_the_guest_there() {
    let cargo =
        |words: &[&str]| Seen::of(workspace::cargo().args(["test", "--package", "guest-kernel"]).args(words));
    let here = cargo(&["--lib", "arguments"]);
    assert!(here.stdout.contains("test arguments::tests::arguments_end_with_a_nul_each ... ok"), "{here:?}");
    let there = cargo(&["--target", "x86_64-unknown-none", "--tests", "boot_info"]);
    assert!(there.stdout.contains("test boot_info::there_is_one_cpu"), "{there:?}");
    assert_eq!((here.code, there.code), (Some(0), Some(0)));
}

/// A host test, a guest test and a budget, each broken on purpose.
const BROKEN: [(&str, &str); 2] = [
    (
        "shared-abi/src/exit_code.rs",
        "
#[cfg(test)]
mod tests {
    #[test]
    fn broken_on_purpose_here() {
        assert_eq!(super::LAST, 1);
    }
}
",
    ),
    (
        "guest-kernel/src/bin/tested.rs",
        "
#[guest_kernel::guest_test]
fn broken_on_purpose_there() {
    assert_eq!(1 + 1, 3);
}

#[guest_kernel::guest_test(max_exits = 0)]
fn broken_on_purpose_budget() {
    println!(\"too much\");
}
",
    ),
];

#[test]
fn broken_tests_of_both_worlds_make_the_command_fail_and_name_their_lines() {
    let copy = WorkspaceCopy::take();
    let seen = Seen::of(copy.xtask().args(["new", "tested"]));
    assert_eq!(seen.code, Some(0), "{seen:?}");
    let mut lines = Vec::new();
    for (file, code) in BROKEN {
        let old = fs::read_to_string(copy.path(file)).expect("readable");
        let new = old + code;
        for sign in ["assert_eq!(super::LAST, 1)", "assert_eq!(1 + 1, 3)", "(max_exits = 0)"] {
            let line = new.lines().position(|line| line.contains(sign));
            lines.extend(line.map(|line| format!("{file}:{}:", line + 1)));
        }
        fs::write(copy.path(file), new).expect("writable");
    }

    let seen = Seen::of(copy.xtask().args(["test", "broken_on_purpose"]));
    assert_eq!(seen.code, Some(1), "{seen:?}");
    assert!(seen.stdout.ends_with("\n0 passed, 3 failed, 0 skipped\n"), "{}", seen.stdout);
    for line in lines {
        assert!(seen.stdout.contains(&line), "{line} in {}", seen.stdout);
    }

    let lesson = "guest-kernel/src/bin/01_hello.rs";
    let text = fs::read_to_string(copy.path(lesson)).expect("readable");
    let broken = text.replacen("//! hello from the guest", "//! hello from nobody", 1);
    let line = broken.lines().position(|line| line == "//! hello from nobody").expect("it was promised") + 1;
    fs::write(copy.path(lesson), broken).expect("writable");
    let seen = Seen::of(copy.xtask().args(["test", "every_lesson"]));
    assert_eq!(seen.code, Some(1), "{seen:?}");
    assert!(seen.stdout.contains(&format!("{lesson}:{line}: ")), "{}", seen.stdout);
}
