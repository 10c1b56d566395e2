//! `vmm run IMAGE [-- ARGUMENT…]` without options, which is how most machines are started.
//!
//! clap describes all options to itself before it reads a word, and that takes a good part of the time in which a machine
//! starts and ends. A line without options needs no description: it is read here, and means just what clap would make of
//! it, which a test holds it to.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Core, Expectations, Machine, Peeks, Press, Run, Snapshots, Watch};

/// What the words behind the program's name mean, if they have this form.
pub(super) fn parse(words: &[OsString]) -> Option<Run> {
    let (command, rest) = words.split_first()?;
    let (image, rest) = rest.split_first()?;
    let is_image = !image.is_empty() && !image.as_encoded_bytes().starts_with(b"-");
    if command != "run" || !is_image {
        return None;
    }
    let arguments = match rest.split_first() {
        None => Vec::new(),
        Some((dashes, arguments)) if dashes == "--" => {
            arguments.iter().map(|word| word.to_str().map(str::to_owned)).collect::<Option<_>>()?
        }
        Some(_) => return None,
    };
    Some(run(Machine::plain(image.into(), arguments)))
}

/// The run of a machine that nobody watches.
fn run(machine: Machine) -> Run {
    Run {
        machine,
        watch: Watch::default(),
        press: Press::default(),
        peeks: Peeks::default(),
        expectations: Expectations::default(),
        gdb: None,
        core: Core::default(),
        snapshots: Snapshots::default(),
        json_report: None::<PathBuf>,
        no_debug_info: false,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{RunCli, RunCommand};
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn a_plain_line_means_what_clap_makes_of_it() {
        for line in [
            &["run", "kernel.elf"][..],
            &["run", "run"],
            &["run", "a b", "--"],
            &["run", "../kernel.elf", "--", "first", "--memory", "", "-"],
            &["run", "kernel.elf", "--", "--", "--help"],
        ] {
            let plain = parse(&words(line)).expect("a plain line");
            let RunCommand::Run(run) = RunCli::parse_from(["vmm"].iter().chain(line)).command;
            assert_eq!(format!("{plain:?}"), format!("{run:?}"), "{line:?}");
        }
    }

    #[test]
    fn every_other_line_is_clap_s() {
        for line in [
            &[][..],
            &["run"],
            &["run", ""],
            &["run", "--help"],
            &["run", "--", "kernel.elf"],
            &["run", "kernel.elf", "--stats"],
            &["run", "kernel.elf", "second"],
            &["test", "kernel.elf"],
        ] {
            assert!(parse(&words(line)).is_none(), "{line:?}");
        }
    }
}
