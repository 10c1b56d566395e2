//! "Add your own hypercall" in CONTRIBUTING.md, followed to the letter in a copy of the workspace.
//!
//! A block of Rust is an edit; the paragraph before it says where, in one of two forms. A console is typed, and what it
//! shows must be among what is printed.
//!
//! ```text
//! In `FILE`, replace everything with:
//! In `FILE`, after the line `LINE`, add:
//! ```

use std::fs;

use crate::harness::Seen;
use crate::harness::markdown::{Block, Typed, blocks, code_spans, section, shows, typed};
use crate::harness::tree::read;
use crate::harness::workspace_copy::WorkspaceCopy;

pub(crate) const HEADING: &str = "## Add your own hypercall";

/// What a reader is told to do.
enum Step {
    Edit { file: String, place: Place, text: String },
    Type(Typed),
}

/// Where the text of an edit goes.
enum Place {
    WholeFile,
    After { line: String },
}

#[test]
fn a_hypercall_takes_three_edits_and_the_compiler_names_the_two_that_are_missing() {
    let contributing = read("CONTRIBUTING.md");
    let steps = steps(section(&contributing, HEADING));
    let copy = WorkspaceCopy::take();

    let mut edits = Vec::new();
    let mut answers = Vec::new();
    for step in steps {
        match step {
            Step::Edit { file, place, text } => {
                edit(&copy, &file, &place, &text);
                edits.push(file);
            }
            Step::Type(typed) => answers.push(answer(&copy, &typed)),
        }
    }

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

fn steps(text: &str) -> Vec<Step> {
    let step = |block: Block<'_>| match block.language {
        "console" => typed(&block.text).into_iter().map(Step::Type).collect(),
        "rust" => vec![edit_of(&block)],
        other => panic!("a block of `{other}` is neither an edit nor a console"),
    };
    blocks(text).into_iter().flat_map(step).collect()
}

fn edit_of(block: &Block<'_>) -> Step {
    let lead = &block.lead;
    let spans: Vec<String> = code_spans(lead).into_iter().map(str::to_owned).collect();
    let (file, place) = match spans.as_slice() {
        [file] if lead.ends_with("`, replace everything with:") => (file, Place::WholeFile),
        [file, line] if lead.contains("`, after the line `") && lead.ends_with("`, add:") => {
            (file, Place::After { line: line.clone() })
        }
        _ => panic!("this does not say where the edit goes: {lead}"),
    };
    Step::Edit { file: file.clone(), place, text: block.text.clone() }
}

fn edit(copy: &WorkspaceCopy, file: &str, place: &Place, text: &str) {
    let path = copy.path(file);
    let old = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let new = match place {
        Place::WholeFile => text.to_owned(),
        Place::After { line } => insert_after(&old, line, text),
    };
    fs::write(path, new).expect("writable");
}

fn insert_after(old: &str, line: &str, text: &str) -> String {
    let is_place = |own: &&str| own.trim() == line;
    assert_eq!(old.lines().filter(is_place).count(), 1, "the line `{line}` stands there once");
    old.split_inclusive('\n').flat_map(|own| [own, if is_place(&own) { text } else { "" }]).collect()
}

/// Types a command; what the document shows of its answer must be there.
fn answer(copy: &WorkspaceCopy, typed: &Typed) -> Seen {
    let words = typed.command.strip_prefix("cargo xtask ").expect("the walk types `cargo xtask` only");
    let seen = Seen::of(copy.xtask().args(words.split(' ')));
    for line in typed.output.lines() {
        let printed = seen.stdout.lines().chain(seen.stderr.lines()).any(|own| shows(line, own));
        assert!(printed, "`{}` prints no line\n{line}\nbut: {}{}", typed.command, seen.stdout, seen.stderr);
    }
    seen
}

#[track_caller]
fn assert_error(seen: &Seen, message: &str, file: &str) {
    let named = seen.stderr.contains(message) && seen.stderr.contains(&format!("--> {file}:"));
    assert!(seen.code == Some(100) && named, "{message} in {file}, but: {}", seen.stderr);
}
