//! How runs end, and the process exit code of each end: the table in `vmm --help`.

use vmm::StopReason;

use crate::harness::{probe, vmm, vmm_run};

#[test]
fn the_guests_own_codes_become_the_process_exit_code() {
    for code in [0, 1, 7, 99] {
        let seen = vmm_run("probe", &["--", "exit", &code.to_string()]);
        assert_eq!((seen.code, seen.stderr.as_str()), (Some(code), ""), "{seen:?}");
    }
}

#[test]
fn codes_that_do_not_fit_are_reported_as_99_and_said() {
    let seen = vmm_run("probe", &["--", "exit", "4711"]);
    assert_eq!(seen.code, Some(99));
    assert!(seen.stderr.contains("4711"), "{seen:?}");
}

#[test]
fn a_one_byte_exit_code_is_enough() {
    probe("exit-by-byte 42").run().stopped_by(&StopReason::Exited { code: 42 });
}

#[test]
fn returning_from_main_is_success() {
    assert_eq!(probe("return").run().succeeded(), "");
}

#[test]
fn a_panic_is_101_and_shows_message_and_place() {
    let seen = vmm_run("probe", &["--", "panic"]);
    assert_eq!(seen.code, Some(101));
    assert!(seen.stdout.contains("guest-kernel/src/bin/probe/ends.rs:"), "{seen:?}");
    assert!(seen.stdout.contains("asked to panic"), "{seen:?}");
    let line = seen.stderr.lines().next().unwrap_or_default();
    assert!(line.starts_with("vmm: the guest panicked at guest-kernel/src/bin/probe/ends.rs:"), "{seen:?}");
    assert!(line.contains(": asked to panic, in probe::"), "{seen:?}");
}

#[test]
fn a_panic_is_one_exit_and_one_to_end_and_its_words_are_in_the_report() {
    let finished = probe("panic").run();
    finished.stopped_by(&StopReason::Exited { code: 101 });
    assert_eq!((finished.report.exits.hypercall, finished.report.exits.total()), (1, 2));
    assert_eq!(finished.report.panic.as_deref(), Some(finished.console.trim_end_matches('\n')));
}

#[test]
fn a_panic_is_one_line_in_the_report_whatever_it_says() {
    let finished = probe("panic-with-escapes").run();
    let report = finished.report.to_string();
    assert!(report.ends_with(": first\\nsecond \\u{1b}[2Jthird"), "{report}");
    assert!(finished.console.contains("first\nsecond \u{1b}[2Jthird"), "the console shows what was said");
}

#[test]
fn a_long_panic_is_shown_whole_and_kept_in_part() {
    let finished = probe("panic-at-length").run();
    finished.stopped_by(&StopReason::Exited { code: 101 });
    assert!(finished.console.ends_with("the end\n") && finished.console.len() > 6000);
    let words = finished.report.panic.expect("it panicked");
    assert_eq!((words.len(), words.ends_with('…')), (4096 + '…'.len_utf8(), true));
}

#[test]
fn a_panic_in_a_panic_ends_like_the_first() {
    let finished = probe("panic-in-panic").run();
    finished.stopped_by(&StopReason::Exited { code: 101 });
    assert!(finished.console.contains("while telling of another panic"), "{}", finished.console);
}

#[test]
fn a_panic_without_a_contract_speaks_through_the_port() {
    let seen = vmm_run("probe", &["--no-contract", "--", "panic"]);
    assert_eq!(seen.code, Some(101), "{seen:?}");
    assert!(seen.stderr.starts_with("vmm: the guest panicked, in probe::"), "{seen:?}");
    assert!(seen.stdout.ends_with(":\nasked to panic\n"), "{seen:?}");
}

#[test]
fn a_guest_that_says_it_panics_and_ends_otherwise_is_told_with_both() {
    let seen = vmm_run("probe", &["--", "panic-and-halt"]);
    assert_eq!(seen.code, Some(102), "{seen:?}");
    assert!(seen.stderr.contains("\nfact: it had panicked: own words\n"), "{seen:?}");
}

#[test]
fn last_words_that_are_nowhere_are_an_answer() {
    let console = probe("panic-nowhere").run().succeeded();
    assert_eq!(console, "Err(BadAddress)\nErr(BadAddress)\nErr(TooLarge)\nErr(BadAddress)\n");
}

#[test]
fn halting_with_interrupts_off_is_an_end_like_any_other() {
    let seen = vmm_run("probe", &["--", "halt"]);
    assert_eq!((seen.code, seen.stderr.as_str()), (Some(0), ""), "{seen:?}");
}

#[test]
fn waiting_for_an_interrupt_that_cannot_come_is_a_death() {
    let seen = vmm_run("probe", &["--", "halt-with-interrupts"]);
    assert_eq!(seen.code, Some(102));
    assert!(seen.stderr.contains("waits for an interrupt"), "{seen:?}");
}

#[test]
fn wrong_arguments_are_2_and_say_what_is_wrong() {
    for (arguments, complaint) in [
        (&["run"][..], "<IMAGE>"),
        (&["run", "x", "--memory", "0"], "at least 2097152"),
        (&["run", "x", "--memory", "3000000"], "not whole pages"),
        (&["run", "x", "--memory", "1000G"], "at most 274877906944"),
        (&["run", "x", "--page-size", "3m"], "4k, 2m, 1g"),
        (&["run", "x", "--timeout", "soon"], "not a time"),
        (&["walk"], "walk"),
        (&[], "Usage"),
    ] {
        let seen = vmm(arguments);
        assert_eq!(seen.code, Some(2), "{seen:?}");
        assert!(seen.stderr.contains(complaint), "{arguments:?}: {seen:?}");
        assert_eq!(seen.stdout, "");
    }
}

#[test]
fn help_documents_the_exit_codes_of_this_suite() {
    let help = vmm(&["--help"]).stdout;
    for code in ["0..99", "100", "101", "102", "124", "130"] {
        assert!(help.contains(&format!("\n  {code} ")), "{code} in {help}");
    }
}
