//! The kernel image: an ELF64 executable, checked before anything else exists, then copied into guest memory.
//!
//! ELF (System V ABI, chapter 5) describes a program twice: *sections* for linkers and debuggers, *segments* for
//! loaders. We read segments only: `PT_LOAD` says "put these bytes of the file at this address, then zeros up to
//! this size, with these rights". An image is a stranger's word. Every number is checked against the file's size,
//! the other segments and the 64-bit range before `linux-loader` copies a byte, so that a bad image ends in one
//! sentence and never in a partly started guest.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use linux_loader::loader::{Elf, KernelLoader};
use object::elf::{
    self, ELFCLASS64, ELFDATA2LSB, EM_X86_64, ET_DYN, ET_EXEC, FileHeader64, PF_W, PF_X, PT_LOAD, PT_NOTE,
    ProgramHeader64,
};
use object::{LittleEndian, pod};
use shared_abi::{Gpa, Gva};
use vm_memory::GuestAddress;

use crate::boot::contract::{self, ContractError};
use crate::boot::guest_map::Rights;
use crate::config::KernelSource;
use crate::error::{Error, Result};
use crate::memory::GuestMemory;

/// A checked kernel image.
#[derive(Debug)]
pub struct KernelImage {
    path: PathBuf,
    source: Source,
    headers: Headers,
}

/// What the headers of a good image say.
#[derive(Debug, PartialEq, Eq)]
struct Headers {
    entry: Gva,
    segments: Vec<Segment>,
    /// Offset and size in the file of each segment of notes.
    notes: Vec<(u64, usize)>,
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

/// What is wrong with a kernel image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[source] io::Error),
    /// A directory, a device, a pipe.
    #[error("it is {0}, not a file")]
    NotAFile(&'static str),
    /// No bytes at all.
    #[error("the file is empty")]
    Empty,
    /// Not an ELF file.
    #[error("it is not an ELF file: it starts with {0:02x?}, not [7f, 45, 4c, 46]")]
    NotElf(Vec<u8>),
    /// An ELF file for another width of CPU.
    #[error("it is not ELF64: its class byte is {0} (1 means ELF32, 2 means ELF64)")]
    NotElf64(u8),
    /// An ELF file for another byte order.
    #[error("it is not little-endian: its data byte is {0} (1 means little-endian, 2 means big-endian)")]
    NotLittleEndian(u8),
    /// An ELF file for another CPU.
    #[error("it is for machine {0}, not for x86-64 (62)")]
    WrongMachine(u16),
    /// An ELF file that is no executable.
    #[error("it is not an executable: its ELF type is {0}, not 2 (ET_EXEC){hint}", hint = type_hint(*.0))]
    NotExecutable(u16),
    /// The file ends before what its headers promise.
    #[error("it is truncated: {what} end at byte {end}, the file has {size}")]
    Truncated {
        /// What should have been there.
        what: &'static str,
        /// Where it should end.
        end: u64,
        /// Size of the file.
        size: u64,
    },
    /// Program headers of another size than ELF64's.
    #[error("its program headers have {0} bytes each, ELF64 has 56")]
    ProgramHeaderSize(u16),
    /// More program headers than a sane image has.
    #[error("it has {0} program headers, at most {max} are read", max = MAX_PROGRAM_HEADERS)]
    TooManyProgramHeaders(u16),
    /// Program headers inside the ELF header.
    #[error("its program headers start at byte {0}, inside the ELF header of 64 bytes")]
    ProgramHeaderOffset(u64),
    /// No segment to load.
    #[error("it has no loadable segment with any size")]
    NothingToLoad,
    /// A segment with more bytes in the file than in memory.
    #[error("segment {index} has {file_size:#x} bytes in the file but only {memory_size:#x} in memory")]
    FileLargerThanMemory {
        /// The program header.
        index: usize,
        /// `p_filesz`.
        file_size: u64,
        /// `p_memsz`.
        memory_size: u64,
    },
    /// A segment that ends beyond 2^64.
    #[error("segment {index} wraps around the end of the address space: {size:#x} bytes at {start}")]
    Wraps {
        /// The program header.
        index: usize,
        /// Where it starts.
        start: Gpa,
        /// `p_memsz`.
        size: u64,
    },
    /// A segment whose bytes in the file end beyond 2^64.
    #[error("segment {index} wraps around the end of the file: {size:#x} bytes at offset {offset:#x}")]
    FileRangeWraps {
        /// The program header.
        index: usize,
        /// `p_offset`.
        offset: u64,
        /// `p_filesz`.
        size: u64,
    },
    /// A segment with different virtual and physical addresses.
    #[error(
        "segment {index} wants virtual address {gva} at physical address {gpa}; this machine maps every address \
         to itself"
    )]
    NotIdentityMapped {
        /// The program header.
        index: usize,
        /// `p_vaddr`.
        gva: Gva,
        /// `p_paddr`.
        gpa: Gpa,
    },
    /// Two segments in one place.
    #[error("segments {first} and {second} overlap: {first_range} and {second_range}")]
    SegmentsOverlap {
        /// The lower segment's program header.
        first: usize,
        /// The higher segment's program header.
        second: usize,
        /// Where the lower one lies.
        first_range: String,
        /// Where the higher one lies.
        second_range: String,
    },
    /// A segment where there is no RAM.
    #[error("segment {index} at {range} lies beyond RAM: {ram}")]
    OutsideRam {
        /// The program header.
        index: usize,
        /// Where the segment lies.
        range: String,
        /// Where RAM lies and what would help.
        ram: String,
    },
    /// A segment where the VMM's own structures lie.
    #[error(
        "segment {index} at {range} overlaps the {structure} at {structure_range}; link the image elsewhere"
    )]
    OverlapsStructure {
        /// The program header.
        index: usize,
        /// Where the segment lies.
        range: String,
        /// The structure.
        structure: &'static str,
        /// Where that lies.
        structure_range: String,
    },
    /// An entry point that cannot be executed.
    #[error("its entry point {entry} lies in no executable segment")]
    EntryNotExecutable {
        /// `e_entry`.
        entry: Gva,
    },
    /// Somebody writes to the file.
    #[error("the file changed while it was read")]
    Changed,
    /// Another contract than ours, or none.
    #[error(transparent)]
    Contract(ContractError),
    /// The loader crate refused what our checks let pass.
    #[error("cannot copy its segments")]
    Load(#[source] linux_loader::loader::Error),
}

fn type_hint(elf_type: u16) -> &'static str {
    match elf::FileType(elf_type) {
        ET_DYN => "; 3 is a position-independent one: link it with -static -no-pie",
        elf::ET_REL => "; 1 is an object file: link it first",
        _ => "",
    }
}

/// A larger segment of notes is not looked into.
const MAX_NOTES_SIZE: u64 = 1 << 20;

/// More program headers than this are refused. Linkers write less than 20.
const MAX_PROGRAM_HEADERS: u16 = 256;

#[derive(Debug)]
enum Source {
    File(File),
    Bytes(Cursor<Arc<[u8]>>),
}

impl KernelImage {
    /// Opens an image and checks all its headers.
    ///
    /// # Errors
    /// [`Error::Image`] with the reason.
    pub fn open(source: &KernelSource) -> Result<Self> {
        match source {
            KernelSource::File(path) => Self::from_file(path.clone()),
            KernelSource::Bytes(bytes) => {
                let path = PathBuf::from("(image in memory)");
                let size = bytes.len() as u64;
                Self::check(path, Source::Bytes(Cursor::new(Arc::clone(bytes))), size)
            }
        }
    }

    fn from_file(path: PathBuf) -> Result<Self> {
        let result = open_regular_file(&path);
        match result {
            Ok((file, size)) => Self::check(path, Source::File(file), size),
            Err(source) => Err(Error::Image { path, source }),
        }
    }

    fn check(path: PathBuf, mut source: Source, size: u64) -> Result<Self> {
        let checked = match &mut source {
            Source::File(file) => check_headers(file, size),
            Source::Bytes(bytes) => check_headers(bytes, size),
        };
        match checked {
            Ok(headers) => Ok(Self { path, source, headers }),
            Err(source) => Err(Error::Image { path, source }),
        }
    }

    /// The loadable segments, lowest first.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.headers.segments
    }

    /// Where execution starts.
    #[must_use]
    pub fn entry(&self) -> Gva {
        self.headers.entry
    }

    /// Copies the segments to their places. RAM is zero, so BSS needs nothing.
    ///
    /// # Errors
    /// [`Error::Image`] when the file changed or cannot be read any more.
    pub fn load(&mut self, memory: &GuestMemory) -> Result<()> {
        // An offset, even of 0, tells linux-loader not to look for the notes of other boot protocols.
        let offset = Some(GuestAddress(0));
        let loaded = match &mut self.source {
            Source::File(file) => Elf::load(memory.as_vm_memory(), offset, file, None),
            Source::Bytes(bytes) => Elf::load(memory.as_vm_memory(), offset, bytes, None),
        };
        loaded.map_err(|error| self.error(ImageError::Load(error)))?;

        // linux-loader has read the headers once more. Had they changed, what lies in memory was never checked.
        let again = match &mut self.source {
            Source::File(file) => file.metadata().map_err(ImageError::Read).and_then(|now| {
                let size = now.len();
                check_headers(file, size)
            }),
            Source::Bytes(bytes) => {
                let size = bytes.get_ref().len() as u64;
                check_headers(bytes, size)
            }
        };
        match again {
            Ok(headers) if headers == self.headers => Ok(()),
            _ => Err(self.error(ImageError::Changed)),
        }
    }

    /// Checks that the guest was built against the contract that this VMM knows.
    ///
    /// # Errors
    /// [`Error::Image`] with what differs.
    pub fn check_contract(&mut self) -> Result<()> {
        let mut segments = Vec::with_capacity(self.headers.notes.len());
        for &(offset, size) in &self.headers.notes {
            let mut bytes = vec![0; size];
            let read = match &mut self.source {
                Source::File(file) => file.read_exact_at(&mut bytes, offset),
                Source::Bytes(source) => {
                    source.seek(SeekFrom::Start(offset)).and_then(|_| source.read_exact(&mut bytes))
                }
            };
            read.map_err(|error| self.error(ImageError::Read(error)))?;
            segments.push(bytes);
        }
        contract::check(segments.iter().map(Vec::as_slice))
            .map_err(|error| self.error(ImageError::Contract(error)))
    }

    /// The host error that says what is wrong with this image.
    #[must_use]
    pub fn error(&self, source: ImageError) -> Error {
        Error::Image { path: self.path.clone(), source }
    }
}

fn open_regular_file(path: &std::path::Path) -> std::result::Result<(File, u64), ImageError> {
    // Asked before opening: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(ImageError::Read)?;
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { "a directory" } else { "a device, pipe or socket" };
        return Err(ImageError::NotAFile(kind));
    }
    let file = File::open(path).map_err(ImageError::Read)?;
    Ok((file, metadata.len()))
}

fn check_headers(file: &mut (impl Read + Seek), size: u64) -> std::result::Result<Headers, ImageError> {
    let header = read_file_header(file, size)?;
    let program_headers = read_program_headers(file, size, &header)?;

    let mut segments = Vec::with_capacity(program_headers.len());
    for (index, header) in program_headers.iter().enumerate() {
        if header.p_type.get(LittleEndian) == PT_LOAD {
            segments.extend(check_segment(index, header, size)?);
        }
    }
    if segments.is_empty() {
        return Err(ImageError::NothingToLoad);
    }
    segments.sort_by_key(|segment| segment.start);
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

    let entry = Gva(header.e_entry.get(LittleEndian));
    let executable = segments
        .iter()
        .any(|segment| segment.rights.can_execute() && segment.start.0 <= entry.0 && entry.0 < segment.end.0);
    if !executable {
        return Err(ImageError::EntryNotExecutable { entry });
    }
    let notes = program_headers.iter().filter_map(|header| note_range(header, size)).collect();
    Ok(Headers { entry, segments, notes })
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
) -> std::result::Result<FileHeader64<LittleEndian>, ImageError> {
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
) -> std::result::Result<Vec<ProgramHeader64<LittleEndian>>, ImageError> {
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
) -> std::result::Result<Option<Segment>, ImageError> {
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
