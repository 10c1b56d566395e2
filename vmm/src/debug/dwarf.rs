//! The sections of an image's debug information (DWARF), as gimli reads them.

use std::sync::Arc;

use gimli::{DwarfSections, EndianArcSlice, RunTimeEndian, SectionId};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object, ObjectSection};

/// A section's bytes.
pub(crate) type Bytes = EndianArcSlice<RunTimeEndian>;

/// All sections; one that is missing is empty.
pub(crate) fn sections(elf: &ElfFile64<'_, LittleEndian>) -> Result<DwarfSections<Bytes>, object::Error> {
    DwarfSections::load(|id: SectionId| {
        let data = match elf.section_by_name(id.name()) {
            Some(section) => section.uncompressed_data()?,
            None => Default::default(),
        };
        Ok(Bytes::new(Arc::from(&*data), RunTimeEndian::Little))
    })
}
