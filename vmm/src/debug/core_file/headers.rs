//! The headers of a core file: what it is, and where in it everything lies.

use object::LittleEndian;
use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, ELFOSABI_NONE, EM_X86_64, ET_CORE, EV_CURRENT, FileHeader64, Ident,
    PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE, ProgramHeader64,
};
use object::pod::bytes_of;
use object::{U16, U32, U64};
use shared_abi::addr::PAGE_SIZE;

use super::segments::{Segment, Segments};

const LE: LittleEndian = LittleEndian;
const FILE_HEADER_SIZE: u64 = size_of::<FileHeader64<LittleEndian>>() as u64;
const PROGRAM_HEADER_SIZE: u64 = size_of::<ProgramHeader64<LittleEndian>>() as u64;

/// The ELF header and all program headers; the notes follow at once.
pub(super) fn headers(segments: &Segments, notes_size: u64) -> Vec<u8> {
    let mut bytes = bytes_of(&file_header(count(segments))).to_vec();
    bytes.extend(bytes_of(&note_header(notes_start(segments), notes_size)));
    let ram = ram_start(segments, notes_size);
    for segment in &segments.segments {
        bytes.extend(bytes_of(&load_header(segment, ram)));
    }
    bytes
}

/// Where in the file RAM starts.
pub(super) fn ram_start(segments: &Segments, notes_size: u64) -> u64 {
    (notes_start(segments) + notes_size).next_multiple_of(PAGE_SIZE)
}

fn notes_start(segments: &Segments) -> u64 {
    FILE_HEADER_SIZE + u64::from(count(segments)) * PROGRAM_HEADER_SIZE
}

/// How many program headers there are: one for the notes, and the segments.
fn count(segments: &Segments) -> u16 {
    u16::try_from(segments.segments.len() + 1).expect("segments are at most as many as headers, less one")
}

fn file_header(count: u16) -> FileHeader64<LittleEndian> {
    FileHeader64 {
        e_ident: Ident {
            magic: ELFMAG,
            class: ELFCLASS64,
            data: ELFDATA2LSB,
            version: EV_CURRENT,
            os_abi: ELFOSABI_NONE,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, ET_CORE),
        e_machine: U16::new(LE, EM_X86_64),
        e_version: U32::new(LE, EV_CURRENT.0.into()),
        e_entry: U64::default(),
        e_phoff: U64::new(LE, FILE_HEADER_SIZE),
        e_shoff: U64::default(),
        e_flags: U32::default(),
        e_ehsize: U16::new(LE, FILE_HEADER_SIZE as u16),
        e_phentsize: U16::new(LE, PROGRAM_HEADER_SIZE as u16),
        e_phnum: U16::new(LE, count),
        e_shentsize: U16::default(),
        e_shnum: U16::default(),
        e_shstrndx: U16::default(),
    }
}

fn note_header(offset: u64, size: u64) -> ProgramHeader64<LittleEndian> {
    ProgramHeader64 {
        p_type: U32::new(LE, PT_NOTE),
        p_flags: U32::new(LE, PF_R),
        p_offset: U64::new(LE, offset),
        p_vaddr: U64::default(),
        p_paddr: U64::default(),
        p_filesz: U64::new(LE, size),
        p_memsz: U64::default(),
        p_align: U64::new(LE, 4),
    }
}

/// The header of a segment, in a file whose RAM starts at this offset.
fn load_header(segment: &Segment, ram: u64) -> ProgramHeader64<LittleEndian> {
    let mut flags = PF_R;
    if segment.is_writable {
        flags |= PF_W;
    }
    if segment.is_executable {
        flags |= PF_X;
    }
    ProgramHeader64 {
        p_type: U32::new(LE, PT_LOAD),
        p_flags: U32::new(LE, flags),
        p_offset: U64::new(LE, ram + segment.stored_at.unwrap_or_default()),
        p_vaddr: U64::new(LE, segment.gva.0),
        p_paddr: U64::new(LE, segment.gpa.0),
        // Memory behind a segment's bytes in the file is zero (System V ABI, chapter 5).
        p_filesz: U64::new(LE, segment.stored_at.map_or(0, |_| segment.size)),
        p_memsz: U64::new(LE, segment.size),
        p_align: U64::new(LE, PAGE_SIZE),
    }
}
