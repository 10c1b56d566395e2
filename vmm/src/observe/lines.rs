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
        // A call may be the last instruction of its function: the byte before its end is still of it.
        let callers = site.callers.as_slice().iter().map(|address| Gva(address.wrapping_sub(1)));
        let mut first = None;
        let mut outermost = None;
        for gva in instruction.into_iter().chain(callers) {
            for line in self.at(gva, symbols) {
                first.get_or_insert_with(|| line.clone());
                if line.is_of_the_program() {
                    return Lined { instruction: first, caller: Some(line.clone()) };
                }
                if !line.is_the_start() {
                    outermost = Some(line.clone());
                }
            }
        }
        // All of it is library code: then what the first instruction has called stands for the program.
        Lined { caller: outermost.or_else(|| first.clone()), instruction: first }
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
        let (function, file) = (frame.function.map(on_one_line), frame.file.map(on_one_line));
        Self { function, file, line: frame.line, address: gva.0 }
    }

    /// Whether it is neither of the guest kernel's library nor of Rust's. What has no name is the program's, and so is a
    /// name without a crate, an assembler's or a C compiler's, but for the start of it all.
    fn is_of_the_program(&self) -> bool {
        const LIBRARIES: [&str; 5] = ["guest_kernel", "shared_abi", "core", "alloc", "compiler_builtins"];
        let Some(function) = &self.function else { return true };
        match crate_of(function) {
            Some(name) => !LIBRARIES.contains(&name),
            None => !self.is_the_start(),
        }
    }

    /// Whether it is where an image starts.
    fn is_the_start(&self) -> bool {
        self.function.as_deref() == Some("_start")
    }
}

/// A name of the image, without control characters: it goes to terminals.
fn on_one_line(name: String) -> String {
    if name.contains(char::is_control) { name.escape_default().to_string() } else { name }
}

/// The crate that a function of Rust is in: of `<T as Trait>::name` the type's, or the trait's where the type is of
/// none, such as `&mut W`.
fn crate_of(function: &str) -> Option<&str> {
    let first = |path: &'_ str| -> Option<usize> { path.find("::") };
    let Some(inside) = function.strip_prefix('<') else {
        return function.get(..first(function)?);
    };
    let (own, of) = inside.split_once(" as ").unwrap_or((inside, ""));
    [own, of].into_iter().find_map(|path| {
        let path = path.get(..first(path)?)?;
        // What stands before the name: `&mut `, `dyn `, `*const `, `[`, `(`.
        path.rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(function: &str, file: &str) -> Line {
        Line { function: Some(function.to_owned()), file: Some(file.to_owned()), line: Some(1), address: 0 }
    }

    #[test]
    fn a_name_cannot_speak_to_the_terminal() {
        let frame = Frame { function: Some("a\u{1b}[2J\nb".to_owned()), ..Frame::default() };
        assert_eq!(Line::of(Gva(0), frame).to_string(), "a\\u{1b}[2J\\nb");
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
            (
                "<&mut W as core::fmt::Write::write_fmt::SpecWriteFmt>::spec_write_fmt",
                "library/core/src/fmt/mod.rs",
                false,
            ),
            ("<&mut dyn probe::Thing as core::fmt::Write>::write_str", "library/core/src/fmt/mod.rs", true),
            ("<[T] as core::fmt::Debug>::fmt", "library/core/src/fmt/mod.rs", false),
            ("_start", "guest-kernel/src/boot.rs", false),
        ] {
            assert_eq!(line(function, file).is_of_the_program(), expected, "{function}");
        }
    }
}
