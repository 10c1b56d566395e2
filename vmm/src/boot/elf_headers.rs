//! ELF headers: read, and checked number by number.
//!
//! ELF (System V ABI, chapter 5) describes a program twice: *sections* for linkers and debuggers, *segments* for
//! loaders. We read segments only: `PT_LOAD` says "put these bytes of the file at this address, then zeros up to
//! this size, with these rights". Every number is checked against the file's size, the other segments and the 64-bit
//! range; what lies in whose way in the machine is for [`guest_map`](super::guest_map) to say.

use std::io::{Read, Seek, SeekFrom};

use object::elf::{
    self, ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_EXEC, FileHeader64, PF_W, PF_X, PT_LOAD, PT_NOTE,
    ProgramHeader64,
};
use object::{LittleEndian, pod};
use shared_abi::{Gpa, Gva};

use crate::boot::image_error::ImageError;
use crate::boot::region::Rights;

/// What the headers of a good image say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Headers {
    /// Where execution starts.
    pub(super) entry: Gva,
    /// The loadable segments, lowest first.
    pub(super) segments: Vec<Segment>,
    /// Offset and size in the file of each segment of notes.
    pub(super) notes: Vec<(u64, usize)>,
}

/// A loadable segment of a kernel image: not empty, not wrapping, and in the file as far as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Position among all program headers, from 0; what `readelf -l` counts.
    pub index: usize,
    /// First byte.
    pub start: Gpa,
    /// First address behind the segment.
    pub end: Gpa,
    /// Where its bytes lie in the file.
    pub file_offset: u64,
    /// How many bytes the file holds; the rest up to `end` is zero (BSS).
    pub file_size: u64,
    /// What the guest may do with it.
    pub rights: Rights,
}

/// A larger segment of notes is not looked into.
const MAX_NOTES_SIZE: u64 = 1 << 20;

/// More program headers than this are refused. Linkers write less than 20.
pub(super) const MAX_PROGRAM_HEADERS: u16 = 256;

impl Headers {
    /// Reads and checks the headers of a file of `size` bytes.
    pub(super) fn read(file: &mut (impl Read + Seek), size: u64) -> Result<Self, ImageError> {
        let header = read_file_header(file, size)?;
        let program_headers = read_program_headers(file, size, &header)?;

        let mut segments = Vec::with_capacity(program_headers.len());
        for (index, header) in program_headers.iter().enumerate() {
            if header.p_type.get(LittleEndian) == PT_LOAD {
                segments.extend(check_segment(index, header, size)?);
            }
        }
        segments.sort_by_key(|segment| segment.start);
        check_overlaps(&segments)?;
        let entry = Gva(header.e_entry.get(LittleEndian));
        check_entry(entry, &segments)?;
        let notes = program_headers.iter().filter_map(|header| note_range(header, size)).collect();
        Ok(Self { entry, segments, notes })
    }
}

/// Checks that there are segments and that none lies in another; they are sorted.
fn check_overlaps(segments: &[Segment]) -> Result<(), ImageError> {
    if segments.is_empty() {
        return Err(ImageError::NothingToLoad);
    }
    for pair in segments.windows(2) {
        if let [first, second] = pair
            && first.end > second.start
        {
            return Err(ImageError::SegmentsOverlap {
                first: first.index,
                second: second.index,
                first_range: first.range(),
                second_range: second.range(),
            });
        }
    }
    Ok(())
}

/// Checks that execution starts where instructions can be fetched.
fn check_entry(entry: Gva, segments: &[Segment]) -> Result<(), ImageError> {
    let executable = segments
        .iter()
        .any(|segment| segment.rights.can_execute() && segment.start.0 <= entry.0 && entry.0 < segment.end.0);
    if executable { Ok(()) } else { Err(ImageError::EntryNotExecutable { entry }) }
}

/// Where a segment of notes lies in the file. Notes are not needed to boot, so strange ones are passed over.
fn note_range(header: &ProgramHeader64<LittleEndian>, size: u64) -> Option<(u64, usize)> {
    let (offset, length) = (header.p_offset.get(LittleEndian), header.p_filesz.get(LittleEndian));
    let end = offset.checked_add(length)?;
    let fits = header.p_type.get(LittleEndian) == PT_NOTE && end <= size && length <= MAX_NOTES_SIZE;
    fits.then_some((offset, length as usize))
}

fn read_file_header(
    file: &mut (impl Read + Seek),
    size: u64,
) -> Result<FileHeader64<LittleEndian>, ImageError> {
    const HEADER_SIZE: usize = size_of::<FileHeader64<LittleEndian>>();
    if size == 0 {
        return Err(ImageError::Empty);
    }
    let mut bytes = [0; HEADER_SIZE];
    let available = HEADER_SIZE.min(usize::try_from(size).unwrap_or(HEADER_SIZE));
    let start = bytes.get_mut(..available).expect("at most HEADER_SIZE");
    file.rewind().and_then(|()| file.read_exact(start)).map_err(ImageError::Read)?;

    // The first bytes say most clearly what a wrong file is; so they are looked at before the size.
    let magic = bytes.get(..available.min(4)).expect("at most HEADER_SIZE");
    if magic != elf::ELFMAG {
        return Err(ImageError::NotElf(magic.to_vec()));
    }
    if available < HEADER_SIZE {
        return Err(ImageError::Truncated { what: "its ELF header should", end: HEADER_SIZE as u64, size });
    }
    let (header, _) = pod::from_bytes::<FileHeader64<LittleEndian>>(&bytes).expect("HEADER_SIZE bytes");
    if header.e_ident.class != ELFCLASS64 {
        return Err(ImageError::NotElf64(header.e_ident.class.0));
    }
    if header.e_ident.data != ELFDATA2LSB {
        return Err(ImageError::NotLittleEndian(header.e_ident.data.0));
    }
    let machine = header.e_machine.get(LittleEndian);
    if machine != EM_X86_64 {
        return Err(ImageError::WrongMachine(machine.0));
    }
    let elf_type = header.e_type.get(LittleEndian);
    if elf_type != ET_EXEC {
        return Err(ImageError::NotExecutable(elf_type.0));
    }
    Ok(*header)
}

fn read_program_headers(
    file: &mut (impl Read + Seek),
    size: u64,
    header: &FileHeader64<LittleEndian>,
) -> Result<Vec<ProgramHeader64<LittleEndian>>, ImageError> {
    const ENTRY_SIZE: usize = size_of::<ProgramHeader64<LittleEndian>>();
    let count = header.e_phnum.get(LittleEndian);
    let offset = header.e_phoff.get(LittleEndian);
    if count == 0 {
        return Err(ImageError::NothingToLoad);
    }
    if count > MAX_PROGRAM_HEADERS {
        return Err(ImageError::TooManyProgramHeaders(count));
    }
    let entry_size = header.e_phentsize.get(LittleEndian);
    if usize::from(entry_size) != ENTRY_SIZE {
        return Err(ImageError::ProgramHeaderSize(entry_size));
    }
    if offset < size_of::<FileHeader64<LittleEndian>>() as u64 {
        return Err(ImageError::ProgramHeaderOffset(offset));
    }
    let table_size = usize::from(count) * ENTRY_SIZE;
    let end = offset.saturating_add(table_size as u64);
    if end > size {
        return Err(ImageError::Truncated { what: "its program headers should", end, size });
    }
    let mut bytes = vec![0; table_size];
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(ImageError::Read)?;
    let (headers, _) = pod::slice_from_bytes(&bytes, usize::from(count)).expect("table_size bytes");
    Ok(headers.to_vec())
}

/// Checks one `PT_LOAD`; `None` when it has no size and so loads nothing.
fn check_segment(
    index: usize,
    header: &ProgramHeader64<LittleEndian>,
    size: u64,
) -> Result<Option<Segment>, ImageError> {
    let (file_offset, file_size) = (header.p_offset.get(LittleEndian), header.p_filesz.get(LittleEndian));
    let memory_size = header.p_memsz.get(LittleEndian);
    let (gva, start) = (Gva(header.p_vaddr.get(LittleEndian)), Gpa(header.p_paddr.get(LittleEndian)));

    if file_size > memory_size {
        return Err(ImageError::FileLargerThanMemory { index, file_size, memory_size });
    }
    if memory_size == 0 {
        return Ok(None);
    }
    let end = start.checked_add(memory_size).ok_or(ImageError::Wraps { index, start, size: memory_size })?;
    let file_end = file_offset.checked_add(file_size).ok_or(ImageError::FileRangeWraps {
        index,
        offset: file_offset,
        size: file_size,
    })?;
    if file_size > 0 && file_end > size {
        return Err(ImageError::Truncated { what: "the bytes of a segment should", end: file_end, size });
    }
    if gva.0 != start.0 {
        return Err(ImageError::NotIdentityMapped { index, gva, gpa: start });
    }
    let flags = header.p_flags.get(LittleEndian);
    let rights = Rights::new(flags.contains(PF_W), flags.contains(PF_X));
    Ok(Some(Segment { index, start, end, file_offset, file_size, rights }))
}

impl Segment {
    /// The segment's place, as text.
    #[must_use]
    pub fn range(&self) -> String {
        format!("{}..{}", self.start, self.end)
    }
}
