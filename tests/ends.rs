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
    assert_eq!(seen.stderr, "vmm: the guest panicked\n");
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
