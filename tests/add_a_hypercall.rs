//! "Add your own hypercall" in CONTRIBUTING.md, followed to the letter (`tests/harness/walkthrough.rs`).

use crate::harness::Seen;
use crate::harness::markdown::section;
use crate::harness::tree::read;
use crate::harness::walkthrough::{self, Walked};

pub(crate) const HEADING: &str = "## Add your own hypercall";

#[test]
fn a_hypercall_takes_three_edits_and_the_compiler_names_the_two_that_are_missing() {
    let contributing = read("CONTRIBUTING.md");

    let Walked { edits, answers } = walkthrough::follow(section(&contributing, HEADING));

    let places =
        ["guest-kernel/src/bin/double.rs", "shared-abi/src/hypercall.rs", "vmm/src/hypercall/mod.rs"];
    assert_eq!(edits, places);
    let [new, guest_error, host_error, run] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(new.code, Some(0), "{new:?}");
    assert_error(guest_error, "error[E0599]: no variant named `Double`", places[0]);
    assert_error(
        host_error,
        "error[E0004]: non-exhaustive patterns: `shared_abi::Hypercall::Double",
        places[2],
    );
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), "42\n"), "{run:?}");
}

#[track_caller]
fn assert_error(seen: &Seen, message: &str, file: &str) {
    let named = seen.stderr.contains(message) && seen.stderr.contains(&format!("--> {file}:"));
    assert!(seen.code == Some(100) && named, "{message} in {file}, but: {}", seen.stderr);
}
