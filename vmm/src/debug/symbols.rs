//! `Symbols`: what an image tells about its addresses: function, file, line, through inlining.
//!
//! An image may carry debug information (DWARF), only a symbol table, or neither, and any of it may be damaged. Reading
//! never fails: it takes the best there is, and [`Symbols::detail`] says which that was and why not better.

use std::fmt;
use std::path::Path;

use addr2line::{Context, Location};
use object::read::elf::{ElfFile64, FileHeader as _};
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, SymbolKind};
use shared_abi::Gva;

use super::dwarf::{self, Bytes};

/// How much an image tells about its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Functions, files and lines.
    Lines,
    /// Functions only, and why no lines.
    Names(String),
    /// Nothing, and why.
    Addresses(String),
}

impl fmt::Display for Detail {
    /// A sentence for people, without a full stop; for [`Detail::Lines`] there is nothing to excuse.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines => f.write_str("functions, files and lines are from the image's debug information"),
            Self::Names(why) => write!(f, "no files and lines: {why}"),
            Self::Addresses(why) => write!(f, "no names, files and lines: {why}"),
        }
    }
}

/// A function that an address is in. Of an address in inlined code there are several, the innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The function's name, demangled.
    pub function: Option<String>,
    /// The source file, relative to the folder it was compiled in.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The column, from 1.
    pub column: Option<u32>,
    /// Whether the function's code was copied into the next one's.
    pub is_inlined: bool,
}

impl Frame {
    /// `file:line`, when both are known.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        Some(format!("{}:{}", self.file.as_ref()?, self.line?))
    }
}

impl fmt::Display for Frame {
    /// `function at file:line`, as far as known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function.as_deref().unwrap_or("(no name)"))?;
        match self.place() {
            Some(place) => write!(f, " at {place}"),
            None => Ok(()),
        }
    }
}

/// What an image tells about its addresses.
pub struct Symbols {
    detail: Detail,
    dwarf: Option<Context<Bytes>>,
    /// Sorted by address.
    functions: Vec<Function>,
    /// Those that are loaded.
    sections: Vec<Section>,
}

/// A section that is loaded.
#[derive(Clone, Debug)]
struct Section {
    start: u64,
    size: u64,
    name: String,
}

/// A function of the symbol table.
#[derive(Clone, Debug)]
struct Function {
    start: u64,
    size: u64,
    name: String,
}

impl Symbols {
    /// Reads the image's debug information and symbol table, as far as they are there and whole.
    #[must_use]
    pub fn read(image: &[u8]) -> Self {
        let elf = match ElfFile64::<LittleEndian>::parse(image) {
            Ok(elf) => elf,
            Err(error) => return Self::none(format!("the image is no ELF file: {error}")),
        };
        let functions = functions(&elf);
        let sections = sections(&elf);
        let no_lines = match debug_information(&elf) {
            Ok(context) => {
                return Self { detail: Detail::Lines, dwarf: Some(context), functions, sections };
            }
            Err(why) => why,
        };
        if functions.is_empty() {
            return Self { sections, ..Self::none(format!("{no_lines}, and no symbol table")) };
        }
        Self { detail: Detail::Names(no_lines), dwarf: None, functions, sections }
    }

    /// Symbols of nothing, and why.
    #[must_use]
    pub fn none(why: String) -> Self {
        Self { detail: Detail::Addresses(why), dwarf: None, functions: Vec::new(), sections: Vec::new() }
    }

    /// How much there is to tell.
    #[must_use]
    pub fn detail(&self) -> &Detail {
        &self.detail
    }

    /// Forgets files and lines, as if the image had been stripped of debug information.
    #[must_use]
    pub fn names_only(self) -> Self {
        if self.functions.is_empty() {
            return self;
        }
        let why = "debug information was not asked for".to_owned();
        Self { detail: Detail::Names(why), dwarf: None, ..self }
    }

    /// The functions that the instruction at `gva` is in, the innermost first; empty when nothing is known. For a return
    /// address ask for the byte before it: the call may have been the function's last instruction.
    #[must_use]
    pub fn frames(&self, gva: Gva) -> Vec<Frame> {
        if gva.0 == u64::MAX {
            // addr2line looks at the byte behind, too. No function ends there.
            return Vec::new();
        }
        // A linker leaves functions that it has thrown away at address 0.
        let dwarf = self.dwarf.as_ref().filter(|_| self.section_at(gva).is_some());
        let mut frames = dwarf.and_then(|dwarf| dwarf_frames(dwarf, gva)).unwrap_or_default();
        if let Some(function) = frames.last_mut() {
            if function.line.is_none() {
                self.place_before(function, gva);
            }
            return frames;
        }
        let function = self.function_at(gva).map(|(name, _)| name.to_owned());
        function.map(|name| Frame { function: Some(name), ..Frame::default() }).into_iter().collect()
    }

    /// Gives `function`, which holds `gva`, the place that the code before it has: of some code that a compiler adds,
    /// such as what touches the pages of a large frame, no line is told.
    fn place_before(&self, function: &mut Frame, gva: Gva) {
        /// Bytes that are looked at before it.
        const MAX_DISTANCE: u64 = 64;
        let Some((_, offset)) = self.function_at(gva) else { return };
        let frame = |back: u64| dwarf_frames(self.dwarf.as_ref()?, Gva(gva.0 - back))?.pop();
        let before = (1..=offset.min(MAX_DISTANCE)).filter_map(frame).find(|frame| frame.line.is_some());
        if let Some(Frame { file, line, column, .. }) = before {
            *function = Frame { file, line, column, ..std::mem::take(function) };
        }
    }

    /// The function of the symbol table that holds `gva`, and how far behind its start that is.
    #[must_use]
    pub fn function_at(&self, gva: Gva) -> Option<(&str, u64)> {
        let behind = self.functions.partition_point(|function| function.start <= gva.0);
        let function = self.functions.get(behind.checked_sub(1)?)?;
        let offset = gva.0 - function.start;
        // Assembly may leave the size out; then the next function ends it.
        (function.size == 0 || offset < function.size).then_some((&*function.name, offset))
    }

    /// The name of the section that holds `gva`.
    #[must_use]
    pub fn section_at(&self, gva: Gva) -> Option<&str> {
        let holds =
            |section: &&Section| gva.0.checked_sub(section.start).is_some_and(|offset| offset < section.size);
        self.sections.iter().find(holds).map(|section| &*section.name)
    }

    /// Where the function of this name starts: its whole name, or the end of it from a `::`.
    #[must_use]
    pub fn address_of(&self, name: &str) -> Option<Gva> {
        let is_meant = |function: &&Function| {
            function.name.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with("::"))
        };
        self.functions.iter().find(is_meant).map(|function| Gva(function.start))
    }
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symbols").field("detail", &self.detail).finish_non_exhaustive()
    }
}

/// The functions of the symbol table, sorted.
fn functions(elf: &ElfFile64<'_, LittleEndian>) -> Vec<Function> {
    let is_code = |symbol: &object::read::elf::ElfSymbol64<'_, '_, LittleEndian>| {
        let in_text = || {
            let section = symbol.section_index().and_then(|index| elf.section_by_index(index).ok());
            section.is_some_and(|section| section.kind() == object::SectionKind::Text)
        };
        symbol.kind() == SymbolKind::Text || (symbol.kind() == SymbolKind::Unknown && in_text())
    };
    let mut functions: Vec<_> = elf
        .symbols()
        .filter(|symbol| symbol.is_definition() && is_code(symbol))
        .filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty())?;
            Some(Function { start: symbol.address(), size: symbol.size(), name: demangled(name) })
        })
        .collect();
    functions.sort_by_key(|function| function.start);
    functions
}

/// The sections that lie in memory.
fn sections(elf: &ElfFile64<'_, LittleEndian>) -> Vec<Section> {
    let of_memory = elf.sections().filter(|section| section.address() != 0 && section.size() != 0);
    let section = |section: object::read::elf::ElfSection64<'_, '_, LittleEndian>| {
        Some(Section {
            start: section.address(),
            size: section.size(),
            name: section.name().ok()?.to_owned(),
        })
    };
    of_memory.filter_map(section).collect()
}

/// The image's DWARF, or why there is none to use.
fn debug_information(elf: &ElfFile64<'_, LittleEndian>) -> Result<Context<Bytes>, String> {
    if elf.section_by_name(".debug_info").is_none() {
        return Err("the image has no debug information".to_owned());
    }
    let damaged = |error: &dyn fmt::Display| format!("the image's debug information is damaged: {error}");
    let dwarf = dwarf::read(elf).map_err(|error| damaged(&error))?;
    let context = Context::from_dwarf(dwarf).map_err(|error| damaged(&error))?;
    // Units are read one by one when asked for; a whole one at the entry shows that there is something to read.
    let entry = elf.elf_header().e_entry(elf.endian());
    match context.find_location(entry.min(LAST_ADDRESS)) {
        Ok(_) => Ok(context),
        Err(error) => Err(damaged(&error)),
    }
}

/// The last address that can be asked for: addr2line adds 1 to it.
const LAST_ADDRESS: u64 = u64::MAX - 1;

fn dwarf_frames(dwarf: &Context<Bytes>, gva: Gva) -> Option<Vec<Frame>> {
    if gva.0 > LAST_ADDRESS {
        return None;
    }
    let folder = compilation_folder(dwarf, gva).unwrap_or_default();
    let mut found = dwarf.find_frames(gva.0).skip_all_loads().ok()?;
    let mut frames = Vec::new();
    // Damaged information could inline without end.
    while frames.len() < MAX_INLINED {
        let Ok(Some(frame)) = found.next() else { break };
        let name = frame.function.as_ref().and_then(|function| function.raw_name().ok());
        frames.push(Frame {
            function: name.map(|name| demangled(&name)),
            ..place(frame.location.as_ref(), &folder)
        });
    }
    let outermost = frames.len().saturating_sub(1);
    for frame in frames.iter_mut().take(outermost) {
        frame.is_inlined = true;
    }
    Some(frames)
}

/// More levels of inlining than any compiler makes.
const MAX_INLINED: usize = 64;

fn place(location: Option<&Location<'_>>, folder: &str) -> Frame {
    let Some(location) = location else { return Frame::default() };
    Frame {
        file: location.file.map(|file| printable(&shortened(file, folder))),
        line: location.line.filter(|&line| line > 0),
        column: location.column.filter(|&column| column > 0),
        ..Frame::default()
    }
}

/// Where the compiler was started that made the code at `gva`.
fn compilation_folder(dwarf: &Context<Bytes>, gva: Gva) -> Option<String> {
    let unit = dwarf.find_dwarf_and_unit(gva.0).skip_all_loads()?;
    let folder = unit.unit.comp_dir.as_ref()?;
    Some(String::from_utf8_lossy(folder).into_owned())
}

/// The path from `folder`; for the standard library, from its own.
fn shortened(file: &str, folder: &str) -> String {
    const LIBRARY: &str = "/library/";
    if let Ok(relative) = Path::new(file).strip_prefix(folder) {
        return relative.to_string_lossy().into_owned();
    }
    let is_rust = file.starts_with("/rustc/") || file.contains("/rustlib/src/rust/");
    match file.find(LIBRARY) {
        Some(at) if is_rust => file.get(at + 1..).unwrap_or(file).to_owned(),
        _ => file.to_owned(),
    }
}

/// A Rust name as people write it, without the hash; any other name as it is.
fn demangled(name: &str) -> String {
    printable(&format!("{:#}", rustc_demangle::demangle(name)))
}

/// The longest name that is shown, in characters. An image may hold any.
const MAX_NAME: usize = 1000;

/// Text of an image as it may be shown: on one line, moving no cursor, of bounded length.
fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(MAX_NAME).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_none_gives_addresses_and_says_why() {
        let symbols = Symbols::read(b"not an ELF file");
        assert!(matches!(symbols.detail(), Detail::Addresses(why) if why.contains("no ELF file")));
        assert!(symbols.frames(Gva(0x10_0000)).is_empty());
    }

    #[test]
    fn an_address_belongs_to_the_function_that_starts_before_it() {
        let function = |start, size, name: &str| Function { start, size, name: name.to_owned() };
        let functions = vec![function(0x10, 0, "start"), function(0x20, 8, "guest_kernel::main")];
        let symbols = Symbols { functions, ..Symbols::none(String::new()) };
        assert_eq!(symbols.function_at(Gva(0xF)), None);
        assert_eq!(symbols.function_at(Gva(0x1F)), Some(("start", 0xF)));
        assert_eq!(symbols.function_at(Gva(0x27)), Some(("guest_kernel::main", 7)));
        assert_eq!(symbols.function_at(Gva(0x28)), None, "it is behind the function's end");
        assert_eq!(symbols.address_of("main"), Some(Gva(0x20)));
        assert_eq!(symbols.address_of("ain"), None);
    }

    #[test]
    fn no_name_moves_a_cursor_or_fills_a_screen() {
        assert_eq!(demangled("evil\u{1b}[2J\n"), "evil\u{fffd}[2J\u{fffd}");
        assert_eq!(demangled(&"a".repeat(1 << 20)).len(), MAX_NAME);
    }

    #[test]
    fn paths_are_told_from_where_they_were_compiled() {
        assert_eq!(shortened("/work/duet/guest-kernel/src/lib.rs", "/work/duet"), "guest-kernel/src/lib.rs");
        let library = "/rustc/0123/library/core/src/panicking.rs";
        assert_eq!(shortened(library, "/work/duet"), "library/core/src/panicking.rs");
        assert_eq!(shortened("/elsewhere/a.c", "/work/duet"), "/elsewhere/a.c");
    }
}
