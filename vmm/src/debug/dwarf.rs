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
    bounded(sections.borrow(Clone::clone), size)
}

/// Makes sure that debug information in `size` bytes says nothing more often than a few times.
fn bounded(mut dwarf: Dwarf<Bytes>, size: usize) -> Result<Dwarf<Bytes>, DwarfError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So many units of nothing, whose tables of abbreviations start so many bytes behind one another, in one long table.
    fn units(count: u32, distance: u32) -> (Dwarf<Bytes>, usize) {
        let unit = |index: u32| {
            let head =
                [&8u32.to_le_bytes()[..], &4u16.to_le_bytes(), &(index * distance).to_le_bytes(), &[8]];
            [head.concat(), vec![0]].concat()
        };
        let info: Vec<u8> = (0..count).flat_map(unit).collect();
        // Code, DW_TAG_base_type, no children, no attributes.
        let abbreviation =
            |index: u32| [0x80 | (index & 0x7F) as u8, 0x80 | (index >> 7) as u8, 1, 0x24, 0, 0, 0];
        let table: Vec<u8> = (0..count).flat_map(abbreviation).collect();
        let size = info.len() + table.len();
        let sections = DwarfSections::load(|id| {
            let bytes: Arc<[u8]> = match id {
                SectionId::DebugInfo => info.clone().into(),
                SectionId::DebugAbbrev => table.clone().into(),
                _ => Arc::from([]),
            };
            Ok::<_, DwarfError>(Bytes::new(bytes, RunTimeEndian::Little))
        });
        (sections.expect("they are there").borrow(Clone::clone), size)
    }

    #[test]
    fn tables_that_overlap_are_refused_before_they_are_read() {
        let (dwarf, size) = units(20_000, 7);
        assert!(matches!(bounded(dwarf, size), Err(DwarfError::Endless)));
    }

    #[test]
    fn a_table_that_all_units_share_is_read_once() {
        let (dwarf, size) = units(20_000, 0);
        let read = bounded(dwarf, size);
        assert!(!matches!(read, Err(DwarfError::Endless)), "{:?}", read.err());
    }
}
