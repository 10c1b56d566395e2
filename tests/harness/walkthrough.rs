//! A walkthrough: a section of a document, followed to the letter in a copy of the workspace.
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
use crate::harness::markdown::{Block, Typed, blocks, code_spans, shows, typed};
use crate::harness::workspace_copy::WorkspaceCopy;

/// What was done.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// The files that were edited, in order.
    pub(crate) edits: Vec<String>,
    /// What `cargo xtask` answered, in order.
    pub(crate) answers: Vec<Seen>,
}

/// Does all that `section` tells.
pub(crate) fn follow(section: &str) -> Walked {
    let copy = WorkspaceCopy::take();
    let mut walked = Walked::default();
    for step in steps(section) {
        match step {
            Step::Edit { file, place, text } => {
                edit(&copy, &file, &place, &text);
                walked.edits.push(file);
            }
            Step::Type(typed) => walked.answers.extend(answer(&copy, &typed)),
        }
    }
    walked
}

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

/// Types a command; what the document shows of its answer must be there. Gives what `cargo xtask` answered.
fn answer(copy: &WorkspaceCopy, typed: &Typed) -> Option<Seen> {
    let words: Vec<&str> = typed.command.split(' ').collect();
    match words.as_slice() {
        ["cargo", "xtask", words @ ..] => {
            let seen = Seen::of(copy.xtask().args(words));
            for line in typed.output.lines() {
                let printed = seen.stdout.lines().chain(seen.stderr.lines()).any(|own| shows(line, own));
                let Seen { stdout, stderr, .. } = &seen;
                assert!(printed, "`{}` prints no line\n{line}\nbut: {stdout}{stderr}", typed.command);
            }
            Some(seen)
        }
        ["mkdir", path] => {
            // The copy lies where the last one lay.
            let _ = fs::remove_dir_all(copy.path(path));
            fs::create_dir(copy.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
            None
        }
        ["cat", path] => {
            let text = fs::read_to_string(copy.path(path));
            assert_eq!(text.ok().as_deref(), Some(typed.output.as_str()), "{path}");
            None
        }
        _ => panic!("nobody knows how to type `{}` here", typed.command),
    }
}
