//! `ImageError`: what is wrong with a kernel image, one sentence each.

use std::io;

use object::elf::{self, ET_DYN};
use shared_abi::{Gpa, Gva};

use crate::boot::contract::ContractError;
use crate::boot::cpu_mode::StartMode;
use crate::boot::elf_headers::MAX_PROGRAM_HEADERS;

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
    #[error(
        "it is not an ELF file: it starts with {0:02x?}, not [7f, 45, 4c, 46]; a flat image needs --load-at, the address \
         where it goes"
    )]
    NotElf(Vec<u8>),
    /// An ELF file where a flat image was announced.
    #[error("it is an ELF file, which says itself where it goes: leave out --load-at")]
    ElfAsFlat,
    /// An ELF file for another width of CPU.
    #[error("it is not ELF64: its class byte is {0} (1 means ELF32, 2 means ELF64){hint}", hint = class_hint(*.0))]
    NotElf64(u8),
    /// An ELF file for another width of CPU, where ELF32 is needed.
    #[error("it is not ELF32, as {mode} needs: its class byte is {class} (1 means ELF32, 2 means ELF64)")]
    NotElf32 {
        /// Its class byte.
        class: u8,
        /// The mode to start in.
        mode: StartMode,
    },
    /// An ELF32 file for another CPU.
    #[error("it is for machine {0}, not for i386 (3)")]
    WrongMachine32(u16),
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
    /// The same for ELF32.
    #[error("its program headers have {0} bytes each, ELF32 has 32")]
    ProgramHeaderSize32(u16),
    /// More program headers than a sane image has.
    #[error("it has {0} program headers, at most {max} are read", max = MAX_PROGRAM_HEADERS)]
    TooManyProgramHeaders(u16),
    /// Program headers inside the ELF header.
    #[error("its program headers start at byte {offset}, inside the ELF header of {header} bytes")]
    ProgramHeaderOffset {
        /// `e_phoff`.
        offset: u64,
        /// Size of the ELF header.
        header: usize,
    },
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
    /// An entry point that the CPU cannot start at.
    #[error("its entry point {entry} lies beyond {reach:#x}, where {mode} ends", reach = .mode.reach())]
    EntryBeyondReach {
        /// Where execution should start.
        entry: Gva,
        /// The mode to start in.
        mode: StartMode,
    },
    /// Somebody writes to the file.
    #[error("the file changed while it was read")]
    Changed,
    /// A contract where no guest can keep one.
    #[error(
        "a guest that starts in {0} can make no hypercalls: run it as a foreign guest, with --no-contract"
    )]
    NoContractIn(StartMode),
    /// Another contract than ours, or none.
    #[error(transparent)]
    Contract(ContractError),
    /// The loader crate refused what our checks let pass.
    #[error("cannot copy its segments")]
    Load(#[source] linux_loader::loader::Error),
}

fn class_hint(class: u8) -> &'static str {
    match class {
        1 => "; --mode protected, paged32, pae or real starts ELF32",
        _ => "",
    }
}

fn type_hint(elf_type: u16) -> &'static str {
    match elf::FileType(elf_type) {
        ET_DYN => "; 3 is a position-independent one: link it with -static -no-pie",
        elf::ET_REL => "; 1 is an object file: link it first",
        _ => "",
    }
}
