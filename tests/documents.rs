//! The documents stay true: paths, names, commands and outputs that they show are those of the tree.

use std::collections::{BTreeMap, HashSet};

use xtask::workspace;

use crate::harness::markdown::{Typed, blocks, code_spans, module_docs, section, shows, typed};
use crate::harness::tree::{files, read, rust_files};
use crate::harness::{Seen, vmm, vmm_run};

const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/modes.md"];

/// Everything that a document has in backticks, and every command of its consoles.
fn code_of(document: &str) -> Vec<String> {
    let text = read(document);
    let spans = code_spans(&text).into_iter().map(str::to_owned);
    spans.chain(consoles(&text).into_iter().map(|typed| typed.command)).collect()
}

/// The commands of all consoles in `text`.
fn consoles(text: &str) -> Vec<Typed> {
    let consoles = blocks(text).into_iter().filter(|block| block.language == "console");
    consoles.flat_map(|block| typed(&block.text)).collect()
}

#[test]
fn every_path_exists() {
    let files = files("");
    let exists = |path: &str| {
        let path = path.trim_end_matches('/');
        files.iter().any(|file| {
            // The end of a path is enough: a table may name its folder once.
            file.match_indices(path).any(|(start, _)| {
                let starts = start == 0 || file[..start].ends_with('/');
                let rest = &file[start + path.len()..];
                starts && (rest.is_empty() || rest.starts_with('/'))
            })
        })
    };
    for document in DOCUMENTS {
        let code = code_of(document);
        for path in code.iter().filter(|code| is_path(code)) {
            assert!(exists(path) || is_made(path, &code), "{document}: there is no `{path}`");
        }
    }
}

fn is_path(code: &str) -> bool {
    const ENDINGS: [&str; 7] = [".rs", ".md", ".toml", ".ld", ".yml", ".json", ".lock"];
    let of_a_path = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_ours = !["/", "./", "target/"].iter().any(|start| code.starts_with(start));
    code.chars().all(of_a_path)
        && is_ours
        && (code.contains('/') || ENDINGS.iter().any(|ending| code.ends_with(ending)))
}

/// Whether the document tells how to make the file: `cargo xtask new NAME`.
fn is_made(path: &str, code: &[String]) -> bool {
    let name = path.strip_prefix("guest-kernel/src/bin/").and_then(|name| name.strip_suffix(".rs"));
    name.is_some_and(|name| code.contains(&format!("cargo xtask new {name}")))
}

#[test]
fn every_function_and_type_exists() {
    let mut words = HashSet::new();
    for file in rust_files("") {
        words.extend(read(&file).split(|c: char| !is_of_a_name(c)).map(str::to_owned));
    }
    for document in DOCUMENTS {
        for code in code_of(document) {
            for name in names(&code) {
                assert!(words.contains(name), "{document}: nothing is called `{name}`, as in `{code}`");
            }
        }
    }
}

/// The names in `Vcpu::enter_guest`, `outb()`, `println!`, `kvm_run` or `Gpa`; none in what is no name of Rust.
fn names(code: &str) -> Vec<&str> {
    let path = code.split(['(', '{', ' ']).next().unwrap_or_default().trim_end_matches('!');
    let parts: Vec<&str> = path.split("::").collect();
    let is_rust = parts.iter().all(|part| !part.is_empty() && part.chars().all(is_of_a_name));
    let is_marked = parts.len() > 1 || code.ends_with("()") || code.ends_with('!');
    // Of single words, only those that no other language has.
    let has_humps = path.starts_with(char::is_uppercase) && path.contains(char::is_lowercase);
    let is_typical = path == code && (path.contains('_') || has_humps);
    if is_rust && (is_marked || is_typical) { parts } else { Vec::new() }
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[test]
fn every_command_and_option_exists() {
    let mut helps = BTreeMap::new();
    for document in DOCUMENTS {
        for code in code_of(document) {
            let words: Vec<&str> = code.split(' ').collect();
            let (tool, words) = match words.as_slice() {
                ["cargo", "xtask", words @ ..] => ("cargo xtask", words),
                ["vmm", words @ ..] => ("vmm", words),
                _ => continue,
            };
            let own = words.iter().copied().take_while(|&word| word != "--");
            let (options, commands): (Vec<_>, Vec<_>) = own.partition(|word| word.starts_with('-'));
            let command = commands.first().copied().unwrap_or_default();
            let row = format!("\n  {command} ");
            let exists = command.is_empty() || help_of(tool, "", &mut helps).contains(&row);
            assert!(exists, "{document}: `{tool}` has no command `{command}`");
            for option in options {
                let exists = help_of(tool, command, &mut helps).contains(option);
                assert!(exists, "{document}: `{tool} {command}` has no option `{option}`");
            }
        }
    }
}

/// What `TOOL COMMAND --help` prints.
fn help_of<'a>(tool: &str, command: &str, helps: &'a mut BTreeMap<String, String>) -> &'a str {
    helps.entry(format!("{tool} {command}")).or_insert_with(|| {
        let words: Vec<&str> = [command, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let seen = if tool == "vmm" { vmm(&words) } else { xtask(&words) };
        assert_eq!(seen.code, Some(0), "{tool} {command}: {seen:?}");
        seen.stdout
    })
}

fn xtask(words: &[&str]) -> Seen {
    Seen::of(workspace::cargo().args(["--quiet", "xtask"]).args(words))
}

#[test]
fn every_console_shows_what_is_printed() {
    for document in DOCUMENTS {
        let text = read(document);
        // Two sections are followed, step by step, by suites of their own.
        let text = match document {
            "CONTRIBUTING.md" => text.replace(section(&text, crate::add_a_hypercall::HEADING), ""),
            "README.md" => text.replace(section(&text, crate::write_a_program::HEADING), ""),
            _ => text,
        };
        let mut last_code = None;
        for Typed { command, output } in consoles(&text) {
            if command == "echo $?" {
                assert_eq!(Some(output.trim().to_owned()), last_code, "{document}: {command}");
            } else if let Some(seen) = execute(&command) {
                let printed = seen.stdout.clone() + &seen.stderr;
                assert!(shows(&output, &printed), "{document}: `{command}`\n{output}\nbut: {seen:?}");
                last_code = seen.code.map(|code| code.to_string());
            }
        }
    }
}

/// Runs what a console shows; not what tests, checks or writes the workspace.
fn execute(command: &str) -> Option<Seen> {
    let words: Vec<&str> = command.split(' ').collect();
    match words.as_slice() {
        ["cargo", "xtask", "run", program, words @ ..] if !program.starts_with('-') => {
            Some(vmm_run(program, words))
        }
        ["cargo", "xtask", "run", words @ ..] => Some(vmm_run(xtask::guest::DEFAULT_PROGRAM, words)),
        ["cargo", "xtask", "test" | "lint" | "ci" | "new", ..] => None,
        ["cargo", "xtask", words @ ..] => Some(xtask(words)),
        ["vmm", words @ ..] => Some(vmm(words)),
        _ => None,
    }
}

#[test]
fn the_table_of_exit_codes_is_the_one_in_the_help() {
    let readme = read("README.md");
    let rows = section(&readme, "## Exit codes").lines().filter(|line| line.starts_with("| "));
    let cells = rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" "));
    let in_readme: Vec<String> = cells.filter(|row| row.starts_with(|c: char| c.is_ascii_digit())).collect();

    assert_eq!(in_readme, exit_codes_of(&vmm(&["--help"]).stdout));
}

/// The rows of the table in the help, each on one line whatever the terminal's width.
fn exit_codes_of(help: &str) -> Vec<String> {
    let table = help.split_once("Exit codes:\n").expect("the help has the table").1;
    let mut rows: Vec<String> = Vec::new();
    for line in table.lines() {
        let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
        match rows.last_mut() {
            Some(row) if !words.starts_with(|c: char| c.is_ascii_digit()) => *row += &format!(" {words}"),
            _ => rows.push(words),
        }
    }
    rows
}

#[test]
fn the_map_of_guest_memory_is_the_contracts() {
    let architecture = read("ARCHITECTURE.md");
    let map = blocks(section(&architecture, "## The map of guest memory")).remove(0).text;
    let layout = module_docs(&read("shared-abi/src/layout.rs"));
    assert!(layout.contains(&map), "shared-abi/src/layout.rs draws another map than\n{map}");
}

#[test]
fn every_rust_file_says_first_what_it_is() {
    for file in rust_files("") {
        assert!(read(&file).starts_with("//! "), "{file}");
    }
}

#[test]
fn code_that_is_quoted_stands_in_its_file() {
    for document in DOCUMENTS {
        let text = read(document);
        for block in blocks(&text).iter().filter(|block| block.lead.ends_with(" has:")) {
            let file = code_spans(&block.lead).first().copied().expect("the file is named");
            assert!(read(file).contains(&block.text), "{document}: {file} has not\n{}", block.text);
        }
    }
}
