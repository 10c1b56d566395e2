//! "Your own program" in README.md, followed to the letter (`tests/harness/walkthrough.rs`).

use crate::harness::markdown::section;
use crate::harness::tree::read;
use crate::harness::walkthrough::{self, Walked};

pub(crate) const HEADING: &str = "## Your own program";

#[test]
fn a_program_with_heap_sleep_and_a_file_works_the_first_time() {
    let readme = read("README.md");

    let Walked { edits, answers } = walkthrough::follow(section(&readme, HEADING));

    assert_eq!(edits, ["guest-kernel/src/bin/my_program.rs"]);
    let [new, first, second] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!((new.code, first.code), (Some(0), Some(0)), "{answers:?}");
    assert_eq!(first.stdout, "hello from my_program\n");
    assert_eq!((second.code, second.stdout.as_str()), (Some(0), "[1, 4, 9, 16, 25]\n"), "{second:?}");
}
