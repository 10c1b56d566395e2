//! `LineTable`: at which addresses the code of a source line begins.
//!
//! DWARF keeps it as a program for a small machine, which makes rows of address, file and line (DWARF 5, 6.2). Rows with the
//! mark `is_stmt` are where the compiler recommends a breakpoint. All numbers are an image's own and may be damaged: the
//! reading is bounded by the image's size (`vmm/src/debug/dwarf.rs`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use gimli::{Dwarf, LineProgramHeader, LineRow, Reader, Unit};
use object::elf::{FileHeader64, PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, Object, read::elf::ElfFile64};
use shared_abi::Gva;

use crate::debug::dwarf::{self, Bytes, DwarfError};

/// The lines of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineTable {
    files: Vec<PathBuf>,
    /// Sorted and unique.
    rows: Vec<Row>,
}

/// Where the code of a line begins; a line has many such places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    address: Gva,
    /// Index into the files.
    file: usize,
    line: u64,
}

/// Why an image has no lines.
#[derive(Debug, thiserror::Error)]
pub enum LineTableError {
    /// It is none.
    #[error("it is no ELF file")]
    NotElf(#[source] object::Error),
    /// It was built without, or stripped.
    #[error("it has no debug information: build it with `debug = \"line-tables-only\"` or more")]
    None,
    /// It cannot be used.
    #[error("its debug information is damaged")]
    Damaged(#[from] DwarfError),
}

impl LineTable {
    /// Reads the lines of an ELF image, without those of the standard library.
    ///
    /// # Errors
    /// Why it has none.
    pub fn read(image: &[u8]) -> Result<Self, LineTableError> {
        let elf = ElfFile64::<LittleEndian>::parse(image).map_err(LineTableError::NotElf)?;
        if elf.section_by_name(".debug_line").is_none() {
            return Err(LineTableError::None);
        }
        let dwarf = dwarf::read(&elf)?;
        Ok(Collector::new(Code::of(image)).collect(&dwarf).map_err(DwarfError::Damaged)?)
    }

    /// A table of one line that begins at each of these addresses: for guests that have no source.
    pub(super) fn of_addresses(addresses: &[Gva]) -> Self {
        let row = |(index, &address): (usize, &Gva)| Row { address, file: 0, line: index as u64 + 1 };
        Self { files: vec![PathBuf::from("code")], rows: addresses.iter().enumerate().map(row).collect() }
    }

    /// The addresses, in order; each once.
    pub fn addresses(&self) -> impl Iterator<Item = Gva> + '_ {
        let addresses: BTreeSet<_> = self.rows.iter().map(|row| row.address).collect();
        addresses.into_iter()
    }

    /// Each place as file, line and address.
    pub(super) fn places(&self) -> impl Iterator<Item = (&PathBuf, u64, Gva)> + '_ {
        self.rows.iter().filter_map(|row| Some((self.files.get(row.file)?, row.line, row.address)))
    }
}

/// The addresses of instructions: the segments that may be executed. Dropped functions have rows elsewhere.
struct Code(Vec<Range<u64>>);

impl Code {
    fn of(image: &[u8]) -> Self {
        let headers = FileHeader64::<LittleEndian>::parse(image)
            .and_then(|header| header.program_headers(LittleEndian, image))
            .unwrap_or_default();
        let is_code = |header: &&object::elf::ProgramHeader64<LittleEndian>| {
            header.p_type(LittleEndian) == PT_LOAD && header.p_flags(LittleEndian).contains(PF_X)
        };
        let range = |header: &object::elf::ProgramHeader64<LittleEndian>| {
            let start = header.p_vaddr(LittleEndian);
            start..start.saturating_add(header.p_memsz(LittleEndian))
        };
        Self(headers.iter().filter(is_code).map(range).collect())
    }

    fn contains(&self, address: u64) -> bool {
        self.0.iter().any(|range| range.contains(&address))
    }
}

/// The table while it is made.
struct Collector {
    code: Code,
    files: HashMap<PathBuf, usize>,
    rows: BTreeSet<Row>,
}

impl Collector {
    fn new(code: Code) -> Self {
        Self { code, files: HashMap::new(), rows: BTreeSet::new() }
    }

    fn collect(mut self, dwarf: &Dwarf<Bytes>) -> gimli::Result<LineTable> {
        // Several units may share a program.
        let mut seen = HashSet::new();
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            let unit = dwarf.unit(header)?;
            let offset = unit.line_program.as_ref().map(|program| program.header().offset().0);
            if offset.is_some_and(|offset| seen.insert(offset)) {
                self.add(dwarf, &unit)?;
            }
        }
        Ok(self.finish())
    }

    fn add(&mut self, dwarf: &Dwarf<Bytes>, unit: &Unit<Bytes>) -> gimli::Result<()> {
        let Some(program) = unit.line_program.clone() else { return Ok(()) };
        let Self { code, files, rows: found } = self;
        // Most rows of a unit are of few files.
        let mut known = HashMap::new();
        let (program, sequences) = program.sequences()?;
        for sequence in sequences.iter().filter(|sequence| code.contains(sequence.start)) {
            let mut rows = program.resume_from(sequence);
            while let Some((header, row)) = rows.next_row()? {
                let Some(line) = begun_line(row).filter(|_| code.contains(row.address())) else { continue };
                let file = *known.entry(row.file_index()).or_insert_with(|| {
                    path(dwarf, unit, header, row).filter(|path| !is_standard_library(path)).map(|path| {
                        let next = files.len();
                        *files.entry(path).or_insert(next)
                    })
                });
                let address = Gva(row.address());
                found.extend(file.map(|file| Row { address, file, line }));
            }
        }
        Ok(())
    }

    fn finish(self) -> LineTable {
        let mut files = vec![PathBuf::new(); self.files.len()];
        for (path, index) in self.files {
            if let Some(file) = files.get_mut(index) {
                *file = path;
            }
        }
        LineTable { files, rows: self.rows.into_iter().collect() }
    }
}

/// The line whose code begins at this row, if one does. Line 0 is code that belongs to no line.
fn begun_line(row: &LineRow) -> Option<u64> {
    row.line().filter(|_| row.is_stmt() && !row.end_sequence()).map(std::num::NonZeroU64::get)
}

/// A longer name is none: many files of a damaged image may lead to the same one.
const MAX_PATH: usize = 4096;

/// The file of a row, from the root of the file system as far as the compiler knew it.
fn path(
    dwarf: &Dwarf<Bytes>,
    unit: &Unit<Bytes>,
    header: &LineProgramHeader<Bytes>,
    row: &LineRow,
) -> Option<PathBuf> {
    let file = row.file(header)?;
    let text = |value| {
        let string = dwarf.attr_string(unit, value).ok()?;
        (string.len() <= MAX_PATH).then(|| Some(string.to_string_lossy().ok()?.into_owned()))?
    };
    let mut path = PathBuf::new();
    if let Some(folder) = unit.comp_dir.as_ref().filter(|folder| folder.len() <= MAX_PATH) {
        path.push(&*folder.to_string_lossy().ok()?);
    }
    // An absolute part replaces what is before it.
    if let Some(folder) = file.directory(header).and_then(text) {
        path.push(folder);
    }
    path.push(text(file.path_name())?);
    Some(path)
}

fn is_standard_library(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.starts_with("/rustc/") || path.contains("/rustlib/src/rust/")
}
