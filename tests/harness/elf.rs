//! Makes ELF64 executables byte by byte: right ones, and ones that are wrong in exactly the place a test wants.
//!
//! ```text
//! 0  ┌ ELF header        64 bytes
//! 64 ├ program headers   56 bytes for each segment
//!    └ the segments' bytes, one behind the other
//! ```

/// An ELF64 file; see System V ABI, chapter 4 and 5. Where a field is an `Option`, `None` means what is right.
#[derive(Clone, Debug)]
pub(crate) struct Elf {
    /// `EI_CLASS`: 2 for ELF64.
    pub(crate) class: u8,
    /// `EI_DATA`: 1 for little-endian.
    pub(crate) data: u8,
    /// `e_type`: 2 for an executable.
    pub(crate) kind: u16,
    /// `e_machine`: 62 for x86-64.
    pub(crate) machine: u16,
    /// `e_entry`.
    pub(crate) entry: u64,
    /// `e_phoff`.
    pub(crate) headers_offset: Option<u64>,
    /// `e_phentsize`.
    pub(crate) header_size: u16,
    /// `e_phnum`.
    pub(crate) header_count: Option<u16>,
    /// One program header each.
    pub(crate) segments: Vec<Segment>,
}

/// A segment and its program header.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// `p_type`.
    pub(crate) kind: u32,
    /// `p_flags`.
    pub(crate) flags: u32,
    /// `p_vaddr`.
    pub(crate) gva: u64,
    /// `p_paddr`.
    pub(crate) gpa: u64,
    /// `p_offset`.
    pub(crate) file_offset: Option<u64>,
    /// `p_filesz`.
    pub(crate) file_size: Option<u64>,
    /// `p_memsz`.
    pub(crate) memory_size: Option<u64>,
    /// What the file holds of it.
    pub(crate) bytes: Vec<u8>,
}

/// `p_type` of a segment to load.
pub(crate) const PT_LOAD: u32 = 1;
/// `p_type` of a segment with notes for other loaders.
pub(crate) const PT_NOTE: u32 = 4;

// `p_flags`.
pub(crate) const R: u32 = 4;
pub(crate) const RW: u32 = 6;
pub(crate) const RX: u32 = 5;
pub(crate) const RWX: u32 = 7;

const ELF_HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;

impl Elf {
    /// An x86-64 executable without any segment.
    pub(crate) fn new(entry: u64) -> Self {
        Self {
            class: 2,
            data: 1,
            kind: 2,
            machine: 62,
            entry,
            headers_offset: None,
            header_size: PROGRAM_HEADER_SIZE as u16,
            header_count: None,
            segments: Vec::new(),
        }
    }

    /// The same with one more segment.
    pub(crate) fn with(mut self, segment: Segment) -> Self {
        self.segments.push(segment);
        self
    }

    /// The file.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let headers_size = PROGRAM_HEADER_SIZE * self.segments.len();
        let mut file = self.elf_header();
        let mut offset = ELF_HEADER_SIZE + headers_size;
        for segment in &self.segments {
            file.extend(segment.header(offset as u64));
            offset += segment.bytes.len();
        }
        for segment in &self.segments {
            file.extend(&segment.bytes);
        }
        file
    }

    fn elf_header(&self) -> Vec<u8> {
        let count = self.header_count.unwrap_or(self.segments.len() as u16);
        let mut header = Vec::with_capacity(ELF_HEADER_SIZE);
        header.extend(b"\x7fELF");
        header.extend([self.class, self.data, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // EI_VERSION, then padding
        header.extend(self.kind.to_le_bytes());
        header.extend(self.machine.to_le_bytes());
        header.extend(1u32.to_le_bytes()); // e_version
        header.extend(self.entry.to_le_bytes());
        header.extend(self.headers_offset.unwrap_or(ELF_HEADER_SIZE as u64).to_le_bytes());
        header.extend(0u64.to_le_bytes()); // e_shoff
        header.extend(0u32.to_le_bytes()); // e_flags
        header.extend((ELF_HEADER_SIZE as u16).to_le_bytes()); // e_ehsize
        header.extend(self.header_size.to_le_bytes());
        header.extend(count.to_le_bytes());
        header.extend([0; 6]); // e_shentsize, e_shnum, e_shstrndx
        header
    }
}

impl Segment {
    /// A segment to load at `address`, virtual and physical, with just these bytes.
    pub(crate) fn new(address: u64, flags: u32, bytes: &[u8]) -> Self {
        Self {
            kind: PT_LOAD,
            flags,
            gva: address,
            gpa: address,
            file_offset: None,
            file_size: None,
            memory_size: None,
            bytes: bytes.to_vec(),
        }
    }

    /// The same with `size` bytes in memory; what the file does not hold is zero.
    pub(crate) fn in_memory(mut self, size: u64) -> Self {
        self.memory_size = Some(size);
        self
    }

    /// The program header of a segment whose bytes lie at `offset` of the file.
    fn header(&self, offset: u64) -> Vec<u8> {
        let file_size = self.file_size.unwrap_or(self.bytes.len() as u64);
        let mut header = Vec::with_capacity(PROGRAM_HEADER_SIZE);
        header.extend(self.kind.to_le_bytes());
        header.extend(self.flags.to_le_bytes());
        for word in [
            self.file_offset.unwrap_or(offset),
            self.gva,
            self.gpa,
            file_size,
            self.memory_size.unwrap_or(file_size),
            1, // p_align
        ] {
            header.extend(word.to_le_bytes());
        }
        header
    }
}
