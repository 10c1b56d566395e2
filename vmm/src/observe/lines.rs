//! From addresses to lines: which line of the guest's program made an exit.
//!
//! The innermost line is the same for most exits: the `out` in the guest kernel's library. What a reader looks for is
//! further out, through inlined functions and callers: the first function of the program itself.

use std::collections::HashMap;

use shared_abi::Gva;

use crate::debug::{Frame, Symbols};
use crate::observe::entry::Site;
use crate::observe::summary::Line;

/// The most addresses whose names are kept.
const MAX_KEPT: usize = 1 << 14;

/// The names of addresses, each looked up once.
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<u64, Vec<Line>>);

/// Two lines of one exit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Lined {
    /// Where the instruction stands.
    pub(super) instruction: Option<Line>,
    /// Where the program called what led there.
    pub(super) caller: Option<Line>,
}

impl Lines {
    /// The lines of an exit by the instruction at `instruction`.
    pub(super) fn of(&mut self, site: &Site, instruction: Option<Gva>, symbols: &Symbols) -> Lined {
        let own: Vec<Line> = instruction.map(|gva| self.at(gva, symbols).to_vec()).unwrap_or_default();
        // A call may be the last instruction of its function: the byte before its end is still of it.
        let callers = site.callers.as_slice().iter().map(|address| Gva(address.wrapping_sub(1)));
        let mut outer: Option<Line> = None;
        let mut before: Option<Line> = None;
        let first = own.first().cloned();
        let mut caller = own.iter().find(|line| line.is_of_the_program()).cloned();
        for gva in callers {
            if caller.is_some() {
                break;
            }
            for line in self.at(gva, symbols) {
                if line.is_of_the_program() {
                    caller = Some(line.clone());
                    break;
                }
                before = outer.replace(line.clone());
            }
        }
        // All of it is library code: then the function that the first instruction has called stands for it.
        let caller = caller.or(before).or(outer).or_else(|| own.last().cloned());
        Lined { instruction: first, caller }
    }

    fn at(&mut self, gva: Gva, symbols: &Symbols) -> &[Line] {
        if self.0.len() >= MAX_KEPT {
            self.0.clear();
        }
        self.0.entry(gva.0).or_insert_with(|| {
            let lines: Vec<_> = symbols.frames(gva).into_iter().map(|frame| Line::of(gva, frame)).collect();
            if lines.is_empty() { vec![Line::of(gva, Frame::default())] } else { lines }
        })
    }
}

impl Line {
    fn of(gva: Gva, frame: Frame) -> Self {
        Self { function: frame.function, file: frame.file, line: frame.line, address: gva.0 }
    }

    /// Whether it is neither of the guest kernel's library nor of Rust's. What has no name at all may be anybody's, and
    /// an assembler's or a C compiler's names belong to the program, but for those where the guest kernel starts.
    fn is_of_the_program(&self) -> bool {
        const LIBRARIES: [&str; 5] = ["guest_kernel", "shared_abi", "core", "alloc", "compiler_builtins"];
        let Some(function) = &self.function else { return false };
        // `<guest_kernel::console::Line as core::fmt::Write>::write_str`, `core::ptr::drop_in_place<…>`
        let path = function.trim_start_matches(['<', '&', '*', '[']);
        let path = path.strip_prefix("dyn ").or_else(|| path.strip_prefix("mut ")).unwrap_or(path);
        match path.split_once("::") {
            Some((name, _)) => !LIBRARIES.contains(&name),
            None => {
                !self.file.as_ref().is_some_and(|file| file.starts_with(KERNEL_LIBRARY) && !is_program(file))
            }
        }
    }
}

/// Where the sources of the guest kernel's library and programs are.
const KERNEL_LIBRARY: &str = "guest-kernel/src/";

fn is_program(file: &str) -> bool {
    file.strip_prefix(KERNEL_LIBRARY).is_some_and(|file| file.starts_with("bin/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(function: &str, file: &str) -> Line {
        Line { function: Some(function.to_owned()), file: Some(file.to_owned()), line: Some(1), address: 0 }
    }

    #[test]
    fn the_program_is_what_is_of_no_library() {
        for (function, file, expected) in [
            ("01_hello::main", "guest-kernel/src/bin/01_hello.rs", true),
            ("probe::prints::print_sizes::{{closure}}", "guest-kernel/src/bin/probe/prints.rs", true),
            ("<probe::Thing as core::fmt::Display>::fmt", "guest-kernel/src/bin/probe/main.rs", true),
            ("main", "main.c", true),
            ("guest_kernel::cpu::port::outb", "guest-kernel/src/cpu/port.rs", false),
            (
                "<guest_kernel::console::DebugConsole as core::fmt::Write>::write_str",
                "guest-kernel/src/console.rs",
                false,
            ),
            ("<&mut W as core::fmt::Write>::write_str", "library/core/src/fmt/mod.rs", false),
            ("core::fmt::write", "library/core/src/fmt/mod.rs", false),
            ("_start", "guest-kernel/src/boot.rs", false),
        ] {
            assert_eq!(line(function, file).is_of_the_program(), expected, "{function}");
        }
    }
}
