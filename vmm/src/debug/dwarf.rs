//! The sections of an image's debug information (DWARF), as gimli reads them, and how much reading them may take.
//!
//! DWARF is full of references: many units may share a table of abbreviations, many functions a list of ranges. In a damaged
//! image parts may overlap, so that a megabyte of it says as much as many gigabytes. A compiler's says each thing about once;
//! so what is read is bounded by a few times the size of the sections.

use std::collections::HashSet;
use std::sync::Arc;

use gimli::{
    AbbreviationsCacheStrategy, Dwarf, DwarfSections, EndianArcSlice, Reader, RunTimeEndian, Section,
    SectionId, Unit,
};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSection};

/// A section's bytes.
pub(crate) type Bytes = EndianArcSlice<RunTimeEndian>;

/// Why debug information cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DwarfError {
    /// A section cannot be read.
    #[error("a section cannot be read")]
    Section(#[from] object::Error),
    /// It is not well-formed.
    #[error("it is not well-formed")]
    Damaged(#[from] gimli::Error),
    /// Its parts overlap.
    #[error("its parts overlap: to read it would take many times its size")]
    Endless,
}

/// The debug information of an image, in which nothing is said more often than a few times.
pub(crate) fn read(elf: &ElfFile64<'_, LittleEndian>) -> Result<Dwarf<Bytes>, DwarfError> {
    let mut size = 0;
    let sections = DwarfSections::load(|id: SectionId| -> Result<Bytes, object::Error> {
        let data = match elf.section_by_name(id.name()) {
            Some(section) => section.uncompressed_data()?,
            None => Default::default(),
        };
        size += data.len();
        Ok(Bytes::new(Arc::from(&*data), RunTimeEndian::Little))
    })?;
    let mut dwarf = sections.borrow(Clone::clone);
    let mut work = Work { left: SLACK + size.saturating_mul(TIMES) };
    work.abbreviations(&dwarf)?;
    // Each table is read once.
    dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::All);
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        work.unit(&dwarf, &dwarf.unit(header)?)?;
    }
    Ok(dwarf)
}

/// How many times the size of all sections may be read.
const TIMES: usize = 8;
/// Bytes that may be read however small the sections are.
const SLACK: usize = 1 << 16;

/// How many bytes may still be read.
struct Work {
    left: usize,
}

impl Work {
    fn spend(&mut self, bytes: usize) -> Result<(), DwarfError> {
        self.left = self.left.checked_sub(bytes).ok_or(DwarfError::Endless)?;
        Ok(())
    }

    /// Reads every table of abbreviations once.
    fn abbreviations(&mut self, dwarf: &Dwarf<Bytes>) -> Result<(), DwarfError> {
        let mut seen = HashSet::new();
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            let offset = header.debug_abbrev_offset().0;
            if seen.insert(offset) {
                let mut table = dwarf.debug_abbrev.reader().clone();
                table.skip(offset)?;
                self.table(&mut table)?;
            }
        }
        Ok(())
    }

    /// A table of abbreviations: code, tag, children, pairs of attribute and form, 0, 0; and a 0 behind the last (DWARF 5,
    /// 7.5.3).
    fn table(&mut self, table: &mut Bytes) -> Result<(), DwarfError> {
        while !table.is_empty() && table.read_uleb128()? != 0 {
            table.read_uleb128()?;
            table.read_u8()?;
            self.spend(3)?;
            loop {
                let (name, form) = (table.read_uleb128()?, table.read_uleb128()?);
                self.spend(2)?;
                match (name, form) {
                    (0, 0) => break,
                    (_, form) if form == u64::from(gimli::DW_FORM_implicit_const.0) => {
                        table.read_sleb128()?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// The lines of a unit, and the ranges that its entries lead to.
    fn unit(&mut self, dwarf: &Dwarf<Bytes>, unit: &Unit<Bytes>) -> Result<(), DwarfError> {
        if let Some(program) = &unit.line_program {
            let header = program.header();
            self.spend(header.raw_program_buf().len() + header.file_names().len())?;
        }
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            let Some(value) = entry.attr_value(gimli::DW_AT_ranges) else { continue };
            let Some(offset) = dwarf.attr_ranges_offset(unit, value)? else { continue };
            let mut ranges = dwarf.raw_ranges(unit, offset)?;
            while ranges.next()?.is_some() {
                self.spend(2)?;
            }
        }
        Ok(())
    }
}
