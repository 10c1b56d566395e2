//! ELF headers: read, and checked number by number.
//!
//! ELF (System V ABI, chapter 5) describes a program twice: *sections* for linkers and debuggers, *segments* for
//! loaders. We read segments only: `PT_LOAD` says "put these bytes of the file at this address, then zeros up to
//! this size, with these rights". Every number is checked against the file's size, the other segments and the 64-bit
//! range; what lies in whose way in the machine is for [`guest_map`](super::guest_map) to say.
//!
//! There are two widths of ELF. 64-bit code comes in ELF64, code of 16 and 32 bits in ELF32; both say the same in fields of
//! other sizes, so one is read as the other.

use std::io::{Read, Seek, SeekFrom};

use object::elf::{
    self, ELFCLASS32, ELFCLASS64, ELFDATA2LSB, EM_386, EM_X86_64, ET_EXEC, FileHeader32, FileHeader64, PF_W,
    PF_X, PT_LOAD, PT_NOTE, ProgramHeader32, ProgramHeader64,
};
use object::{LittleEndian, Pod, pod};
use shared_abi::{Gpa, Gva};

use crate::boot::cpu_mode::StartMode;
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
    /// Reads and checks the headers of a file of `size` bytes, which is to start in `mode`.
    pub(super) fn read(
        file: &mut (impl Read + Seek),
        size: u64,
        mode: StartMode,
    ) -> Result<Self, ImageError> {
        let header = read_file_header(file, size, mode)?;
        let program_headers = read_program_headers(file, size, &header)?;

        let mut segments = Vec::with_capacity(program_headers.len());
        for (index, header) in program_headers.iter().enumerate() {
            if header.kind == PT_LOAD {
                segments.extend(check_segment(index, header, size)?);
            }
        }
        segments.sort_by_key(|segment| segment.start);
        check_overlaps(&segments)?;
        check_entry(header.entry, &segments, mode)?;
        let notes = program_headers.iter().filter_map(|header| note_range(header, size)).collect();
        Ok(Self { entry: header.entry, segments, notes })
    }

    /// What the headers of a flat image would say: all of it, at one place, with all rights.
    pub(super) fn of_flat(start: Gpa, size: u64, entry: Gva, mode: StartMode) -> Result<Self, ImageError> {
        if size == 0 {
            return Err(ImageError::Empty);
        }
        let end = start.checked_add(size).ok_or(ImageError::Wraps { index: 0, start, size })?;
        let rights = Rights::ReadWriteExecute;
        let segment = Segment { index: 0, start, end, file_offset: 0, file_size: size, rights };
        check_entry(entry, &[segment], mode)?;
        Ok(Self { entry, segments: vec![segment], notes: Vec::new() })
    }
}

/// The width of an ELF file: of its fields, and of the code in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Elf32,
    Elf64,
}

impl Width {
    const fn header_size(self) -> usize {
        match self {
            Self::Elf32 => size_of::<FileHeader32<LittleEndian>>(),
            Self::Elf64 => size_of::<FileHeader64<LittleEndian>>(),
        }
    }

    const fn program_header_size(self) -> usize {
        match self {
            Self::Elf32 => size_of::<ProgramHeader32<LittleEndian>>(),
            Self::Elf64 => size_of::<ProgramHeader64<LittleEndian>>(),
        }
    }
}

/// What is needed of the ELF header, of either width.
struct FileHeader {
    width: Width,
    entry: Gva,
    offset: u64,
    count: u16,
    entry_size: u16,
}

/// What is needed of a program header, of either width.
struct ProgramHeader {
    kind: elf::ProgramType,
    flags: elf::ProgramFlags,
    file_offset: u64,
    file_size: u64,
    memory_size: u64,
    gva: Gva,
    gpa: Gpa,
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

/// Checks that execution starts where instructions can be fetched, and where the mode reaches.
fn check_entry(entry: Gva, segments: &[Segment], mode: StartMode) -> Result<(), ImageError> {
    let executable = segments
        .iter()
        .any(|segment| segment.rights.can_execute() && segment.start.0 <= entry.0 && entry.0 < segment.end.0);
    if !executable {
        return Err(ImageError::EntryNotExecutable { entry });
    }
    if mode != StartMode::Long && entry.0 >= mode.reach() {
        return Err(ImageError::EntryBeyondReach { entry, mode });
    }
    Ok(())
}

/// Where a segment of notes lies in the file. Notes are not needed to boot, so strange ones are passed over.
fn note_range(header: &ProgramHeader, size: u64) -> Option<(u64, usize)> {
    let end = header.file_offset.checked_add(header.file_size)?;
    let fits = header.kind == PT_NOTE && end <= size && header.file_size <= MAX_NOTES_SIZE;
    fits.then_some((header.file_offset, header.file_size as usize))
}

fn read_file_header(
    file: &mut (impl Read + Seek),
    size: u64,
    mode: StartMode,
) -> Result<FileHeader, ImageError> {
    const MOST: usize = Width::Elf64.header_size();
    if size == 0 {
        return Err(ImageError::Empty);
    }
    let mut bytes = [0; MOST];
    let available = MOST.min(usize::try_from(size).unwrap_or(MOST));
    let start = bytes.get_mut(..available).expect("at most MOST");
    file.rewind().and_then(|()| file.read_exact(start)).map_err(ImageError::Read)?;

    // The first bytes say most clearly what a wrong file is; so they are looked at before the size.
    let magic = bytes.get(..available.min(4)).expect("at most MOST");
    if magic != elf::ELFMAG {
        return Err(ImageError::NotElf(magic.to_vec()));
    }
    // Behind the magic; a file that ends before has zeros there.
    let [_, _, _, _, class, data, ..] = bytes;
    let width = match mode {
        StartMode::Long => Width::Elf64,
        _ => Width::Elf32,
    };
    let whole = width.header_size();
    if available < whole {
        return Err(ImageError::Truncated { what: "its ELF header should", end: whole as u64, size });
    }
    match width {
        Width::Elf64 if class != ELFCLASS64.0 => return Err(ImageError::NotElf64(class)),
        Width::Elf32 if class != ELFCLASS32.0 => return Err(ImageError::NotElf32 { class, mode }),
        _ => {}
    }
    if data != ELFDATA2LSB.0 {
        return Err(ImageError::NotLittleEndian(data));
    }
    let (machine, elf_type, header) = parse_file_header(width, &bytes);
    match width {
        Width::Elf64 if machine != EM_X86_64 => return Err(ImageError::WrongMachine(machine.0)),
        Width::Elf32 if machine != EM_386 => return Err(ImageError::WrongMachine32(machine.0)),
        _ => {}
    }
    if elf_type != ET_EXEC {
        return Err(ImageError::NotExecutable(elf_type.0));
    }
    Ok(header)
}

/// Machine, file type, and what is needed besides.
fn parse_file_header(width: Width, bytes: &[u8]) -> (elf::Machine, elf::FileType, FileHeader) {
    match width {
        Width::Elf32 => {
            let header: &FileHeader32<LittleEndian> = from_bytes(bytes);
            let needed = FileHeader {
                width,
                entry: Gva(header.e_entry.get(LittleEndian).into()),
                offset: header.e_phoff.get(LittleEndian).into(),
                count: header.e_phnum.get(LittleEndian),
                entry_size: header.e_phentsize.get(LittleEndian),
            };
            (header.e_machine.get(LittleEndian), header.e_type.get(LittleEndian), needed)
        }
        Width::Elf64 => {
            let header: &FileHeader64<LittleEndian> = from_bytes(bytes);
            let needed = FileHeader {
                width,
                entry: Gva(header.e_entry.get(LittleEndian)),
                offset: header.e_phoff.get(LittleEndian),
                count: header.e_phnum.get(LittleEndian),
                entry_size: header.e_phentsize.get(LittleEndian),
            };
            (header.e_machine.get(LittleEndian), header.e_type.get(LittleEndian), needed)
        }
    }
}

fn from_bytes<T: Pod>(bytes: &[u8]) -> &T {
    pod::from_bytes(bytes).expect("as many bytes as a header has").0
}

fn read_program_headers(
    file: &mut (impl Read + Seek),
    size: u64,
    header: &FileHeader,
) -> Result<Vec<ProgramHeader>, ImageError> {
    let &FileHeader { width, offset, count, entry_size, .. } = header;
    let own_size = width.program_header_size();
    if count == 0 {
        return Err(ImageError::NothingToLoad);
    }
    if count > MAX_PROGRAM_HEADERS {
        return Err(ImageError::TooManyProgramHeaders(count));
    }
    if usize::from(entry_size) != own_size {
        return Err(match width {
            Width::Elf32 => ImageError::ProgramHeaderSize32(entry_size),
            Width::Elf64 => ImageError::ProgramHeaderSize(entry_size),
        });
    }
    if offset < width.header_size() as u64 {
        return Err(ImageError::ProgramHeaderOffset { offset, header: width.header_size() });
    }
    let table_size = usize::from(count) * own_size;
    let end = offset.saturating_add(table_size as u64);
    if end > size {
        return Err(ImageError::Truncated { what: "its program headers should", end, size });
    }
    let mut bytes = vec![0; table_size];
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(ImageError::Read)?;
    Ok(bytes.chunks_exact(own_size).map(|bytes| parse_program_header(width, bytes)).collect())
}

fn parse_program_header(width: Width, bytes: &[u8]) -> ProgramHeader {
    match width {
        Width::Elf32 => {
            let header: &ProgramHeader32<LittleEndian> = from_bytes(bytes);
            ProgramHeader {
                kind: header.p_type.get(LittleEndian),
                flags: header.p_flags.get(LittleEndian),
                file_offset: header.p_offset.get(LittleEndian).into(),
                file_size: header.p_filesz.get(LittleEndian).into(),
                memory_size: header.p_memsz.get(LittleEndian).into(),
                gva: Gva(header.p_vaddr.get(LittleEndian).into()),
                gpa: Gpa(header.p_paddr.get(LittleEndian).into()),
            }
        }
        Width::Elf64 => {
            let header: &ProgramHeader64<LittleEndian> = from_bytes(bytes);
            ProgramHeader {
                kind: header.p_type.get(LittleEndian),
                flags: header.p_flags.get(LittleEndian),
                file_offset: header.p_offset.get(LittleEndian),
                file_size: header.p_filesz.get(LittleEndian),
                memory_size: header.p_memsz.get(LittleEndian),
                gva: Gva(header.p_vaddr.get(LittleEndian)),
                gpa: Gpa(header.p_paddr.get(LittleEndian)),
            }
        }
    }
}

/// Checks one `PT_LOAD`; `None` when it has no size and so loads nothing.
fn check_segment(index: usize, header: &ProgramHeader, size: u64) -> Result<Option<Segment>, ImageError> {
    let &ProgramHeader { file_offset, file_size, memory_size, gva, gpa: start, flags, .. } = header;
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
