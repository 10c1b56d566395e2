//! Markdown as far as the project's documents use it: sections, code spans, fenced blocks, consoles.

/// A fenced block.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    /// What stands behind the fence, such as `rust`.
    pub(crate) language: &'a str,
    /// The paragraph before the block, its lines joined.
    pub(crate) lead: String,
    /// The lines inside, each with its newline.
    pub(crate) text: String,
}

/// The part of `document` below the heading `heading`, up to the next heading of its level or above.
pub(crate) fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let level = heading.chars().take_while(|&c| c == '#').count();
    let start = document.find(&format!("{heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`"));
    let below = &document[start + heading.len()..];
    let mut in_block = false;
    let mut end = 0;
    for line in below.split_inclusive('\n') {
        in_block ^= line.starts_with("```");
        let hashes = line.chars().take_while(|&c| c == '#').count();
        if !in_block && (1..=level).contains(&hashes) {
            break;
        }
        end += line.len();
    }
    &below[..end]
}

/// All fenced blocks, in order.
pub(crate) fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut paragraph: Vec<&str> = Vec::new();
    let mut has_ended = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let inside = lines.by_ref().take_while(|line| !line.starts_with("```"));
            let text = inside.flat_map(|line| [line, "\n"]).collect();
            blocks.push(Block { language, lead: paragraph.join(" "), text });
            paragraph.clear();
        } else if line.is_empty() {
            has_ended = true;
        } else {
            if has_ended {
                paragraph.clear();
            }
            has_ended = false;
            paragraph.push(line);
        }
    }
    blocks
}

/// The text of a Rust file's `//!`.
pub(crate) fn module_docs(source: &str) -> String {
    let lines = source.lines().map_while(|line| line.strip_prefix("//!"));
    lines.flat_map(|line| [line.strip_prefix(' ').unwrap_or(line), "\n"]).collect()
}

/// What stands in backticks, outside of blocks.
pub(crate) fn code_spans(text: &str) -> Vec<&str> {
    let mut in_block = false;
    let outside = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        in_block ^= fence;
        !in_block && !fence
    });
    outside.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// A command that somebody types, and what it answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed {
    pub(crate) command: String,
    pub(crate) output: String,
}

/// The commands of a console block: lines that start with `$ `, each with the lines that follow.
pub(crate) fn typed(console: &str) -> Vec<Typed> {
    let mut all: Vec<Typed> = Vec::new();
    for line in console.split_inclusive('\n') {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => {
                all.push(Typed { command: command.trim_end().to_owned(), output: String::new() });
            }
            (None, Some(last)) => last.output.push_str(line),
            (None, None) => panic!("a console starts with a command: {line}"),
        }
    }
    all
}

/// Whether `shown` is `real`; each `…` in it stands for anything.
pub(crate) fn shows(shown: &str, real: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else {
        return shown == real;
    };
    let Some(mut real) = real.strip_prefix(start) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('…').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match real.find(piece) {
            Some(position) => real = &real[position + piece.len()..],
            None => return false,
        }
    }
    real.ends_with(end)
}

#[test]
fn a_section_ends_at_the_next_heading_of_its_level() {
    let document = "# A\none\n## B\ntwo\n```sh\n# no heading\n```\n### C\nthree\n## D\nfour\n";
    assert_eq!(section(document, "## B"), "\ntwo\n```sh\n# no heading\n```\n### C\nthree\n");
    assert!(section(document, "# A").ends_with("four\n"));
}

#[test]
fn a_block_has_the_paragraph_before_it() {
    let text = "Away.\n\nIn `a`,\nadd:\n\n```rust\nx\n\ny\n```\n```console\n$ z\n```\n";
    let blocks = blocks(text);
    assert_eq!((blocks[0].language, blocks[0].text.as_str()), ("rust", "x\n\ny\n"));
    assert_eq!(blocks[0].lead, "In `a`, add:");
    assert_eq!((blocks[1].language, blocks[1].lead.as_str()), ("console", ""));
    assert_eq!(code_spans(text), ["a"]);
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(shows("at RIP 0x…\n", "at RIP 0x1234\n"));
    assert!(shows("a…c…e\n", "a b\nc d e\n"));
    assert!(!shows("a…c…e\n", "a b\ne\n"));
    assert!(!shows("a", "a\n"));
}
