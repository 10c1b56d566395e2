//! A program's ELF file, as far as a loader needs it (System V ABI, chapters 4 and 5; its AMD64 supplement, 4.1).
//!
//! Whatever stands there is somebody's word. Each number is checked before it is used, and what is odd is refused: a
//! program is linked by our script, so all that is unusual is a mistake, or a trick.
//!
//! Pure: bytes in, [`Segment`]s out. The host does the same for kernels, in `vmm/src/boot/elf_headers.rs`.

use core::fmt;

use shared_abi::Gva;
use shared_abi::addr::PAGE_SIZE;

use super::memory::{IMAGE, IMAGE_END};
use crate::memory::paging::Rights;

/// What must be in memory before a program starts.
#[derive(Debug)]
pub(super) struct Executable<'a> {
    /// The first instruction, in a segment that can be executed.
    pub(super) entry: Gva,
    bytes: &'a [u8],
    headers: &'a [u8],
}

/// Bytes to be put somewhere, with rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    /// Where; the start of a page.
    pub(super) start: Gva,
    /// Behind its last byte.
    pub(super) end: Gva,
    /// What is there; zeros follow.
    pub(super) content: &'a [u8],
    /// What the program may do with it.
    pub(super) rights: Rights,
}

/// What is wrong with an ELF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It is no ELF file, or ends within its headers.
    NoElf,
    /// It is one, but of another kind: not 64-bit, little endian, x86-64, linked to a fixed address.
    OtherKind,
    /// It has more than [`MAX_SEGMENTS`] segments, or their headers have another size.
    Headers,
    /// A segment's bytes are not all in the file, or do not fit into its memory.
    Truncated {
        /// Where the segment should lie.
        address: u64,
    },
    /// A segment lies outside of where programs may, or not at the start of a page.
    Place {
        /// Where the segment should lie.
        address: u64,
    },
    /// A segment is to be written and executed.
    WriteAndExecute {
        /// Where the segment should lie.
        address: u64,
    },
    /// The first instruction is in no segment that can be executed.
    Entry {
        /// Where it should be.
        address: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoElf => f.write_str("this is no complete ELF file"),
            Self::OtherKind => f.write_str("only 64-bit x86 programs with a fixed address can be run"),
            Self::Headers => write!(f, "a program has {MAX_SEGMENTS} segments at most"),
            Self::Truncated { address } => {
                write!(f, "the segment at {address:#x} has bytes that are not in the file")
            }
            Self::Place { address } => write!(
                f,
                "the segment at {address:#x} does not start a page between {IMAGE:#x} and {IMAGE_END:#x}, or does \
                 not end there"
            ),
            Self::WriteAndExecute { address } => {
                write!(f, "the segment at {address:#x} is to be written and executed: give it one of both")
            }
            Self::Entry { address } => write!(f, "the entry {address:#x} is in no executable segment"),
        }
    }
}

impl core::error::Error for ImageError {}

/// The most program headers that are read.
pub const MAX_SEGMENTS: u64 = 16;

/// `\x7fELF`, 64-bit, little endian, version 1.
const MAGIC: [u8; 7] = [0x7F, b'E', b'L', b'F', 2, 1, 1];
/// `e_type` of a program that is linked to fixed addresses.
const ET_EXEC: u64 = 2;
const EM_X86_64: u64 = 62;
const PT_LOAD: u64 = 1;
/// Bits of `p_flags`.
const EXECUTE: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
/// Bytes of an `Elf64_Phdr`.
const HEADER_SIZE: u64 = 56;

impl<'a> Executable<'a> {
    /// Reads and checks all that [`segments`](Self::segments) will give.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(ImageError::NoElf);
        }
        let field = |offset, size| number(bytes, offset, size).ok_or(ImageError::NoElf);
        if (field(16, 2)?, field(18, 2)?) != (ET_EXEC, EM_X86_64) {
            return Err(ImageError::OtherKind);
        }
        let (entry, offset) = (field(24, 8)?, field(32, 8)?);
        let (size, count) = (field(54, 2)?, field(56, 2)?);
        if size != HEADER_SIZE || count > MAX_SEGMENTS {
            return Err(ImageError::Headers);
        }
        let headers = piece(bytes, offset, size * count).ok_or(ImageError::NoElf)?;
        let executable = Self { entry: Gva(entry), bytes, headers };
        let mut has_entry = false;
        for segment in executable.segments() {
            let Segment { start, end, rights, .. } = segment?;
            has_entry |= rights.can_execute() && (start.0..end.0).contains(&entry);
        }
        if has_entry { Ok(executable) } else { Err(ImageError::Entry { address: entry }) }
    }

    /// The segments to be loaded. None is empty; two may still want the same page.
    pub(super) fn segments(&self) -> impl Iterator<Item = Result<Segment<'a>, ImageError>> {
        let headers = self.headers.chunks_exact(HEADER_SIZE as usize);
        headers.filter_map(|header| segment(header, self.bytes).transpose())
    }
}

/// What an `Elf64_Phdr` asks for; `None` when that is nothing.
fn segment<'a>(header: &[u8], bytes: &'a [u8]) -> Result<Option<Segment<'a>>, ImageError> {
    let field = |offset, size| number(header, offset, size).ok_or(ImageError::Headers);
    let (kind, flags) = (field(0, 4)?, field(4, 4)?);
    let (offset, address, size, size_in_memory) = (field(8, 8)?, field(16, 8)?, field(32, 8)?, field(40, 8)?);
    if kind != PT_LOAD || size_in_memory == 0 {
        return Ok(None);
    }
    let end = address.checked_add(size_in_memory).filter(|end| *end <= IMAGE_END);
    let end = end.ok_or(ImageError::Place { address })?;
    if address < IMAGE || !address.is_multiple_of(PAGE_SIZE) {
        return Err(ImageError::Place { address });
    }
    let content = piece(bytes, offset, size).filter(|_| size <= size_in_memory);
    let content = content.ok_or(ImageError::Truncated { address })?;
    let rights = match (flags & WRITE != 0, flags & EXECUTE != 0) {
        (false, false) => Rights::READ,
        (true, false) => Rights::READ_WRITE,
        (false, true) => Rights::READ_EXECUTE,
        (true, true) => return Err(ImageError::WriteAndExecute { address }),
    };
    Ok(Some(Segment { start: Gva(address), end: Gva(end), content, rights }))
}

/// `size` bytes from `offset` on, if all of them are there.
fn piece(bytes: &[u8], offset: u64, size: u64) -> Option<&[u8]> {
    let end = offset.checked_add(size)?;
    bytes.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
}

/// The number of `size` bytes at `offset`, little endian.
fn number(bytes: &[u8], offset: u64, size: u64) -> Option<u64> {
    let mut word = [0; size_of::<u64>()];
    word.get_mut(..size as usize)?.copy_from_slice(piece(bytes, offset, size)?);
    Some(u64::from_le_bytes(word))
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    /// A file with one segment: `code` at `address`.
    fn file(address: u64, flags: u32, code: &[u8], size_in_memory: u64) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.resize(16, 0);
        bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
        for word in [address, 64, 0] {
            bytes.extend(u64::to_le_bytes(word));
        }
        bytes.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        for word in [120, address, address, code.len() as u64, size_in_memory, 4096] {
            bytes.extend(u64::to_le_bytes(word));
        }
        bytes.extend(code);
        bytes
    }

    #[test]
    fn a_segment_is_found_with_its_rights() {
        let bytes = file(IMAGE, 5, &[0xF4], 0x1001);
        let executable = Executable::parse(&bytes).expect("it is a program");
        let segments: Vec<_> = executable.segments().map(|segment| segment.expect("checked")).collect();
        let (start, end) = (Gva(IMAGE), Gva(IMAGE + 0x1001));
        assert_eq!(segments, [Segment { start, end, content: &[0xF4], rights: Rights::READ_EXECUTE }]);
        assert_eq!(executable.entry, start);
    }

    #[test]
    fn what_is_odd_is_refused() {
        let refused = |bytes: Vec<u8>| Executable::parse(&bytes).expect_err("it is odd");
        let (low, high) = (0x10_0000, 0xFFFF_8000_0000_0000);
        assert_eq!(refused(file(low, 5, &[0xF4], 1)), ImageError::Place { address: low });
        assert_eq!(refused(file(high, 5, &[0xF4], 1)), ImageError::Place { address: high });
        assert_eq!(refused(file(IMAGE + 1, 5, &[0xF4], 1)), ImageError::Place { address: IMAGE + 1 });
        assert_eq!(refused(file(IMAGE, 5, &[0xF4], u64::MAX)), ImageError::Place { address: IMAGE });
        assert_eq!(refused(file(IMAGE, 5, &[0xF4; 2], 1)), ImageError::Truncated { address: IMAGE });
        assert_eq!(refused(file(IMAGE, 7, &[0xF4], 1)), ImageError::WriteAndExecute { address: IMAGE });
        assert_eq!(refused(file(IMAGE, 6, &[0xF4], 1)), ImageError::Entry { address: IMAGE });
        assert_eq!(refused(Vec::new()), ImageError::NoElf);
    }

    #[test]
    fn no_file_that_is_cut_or_has_a_byte_changed_is_a_panic() {
        let whole = file(IMAGE, 5, &[0xF4; 16], 32);
        for size in 0..whole.len() {
            assert!(Executable::parse(&whole[..size]).is_err(), "{size}");
        }
        for place in 0..whole.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut bytes = whole.clone();
                bytes[place] = value;
                if let Ok(executable) = Executable::parse(&bytes) {
                    assert!(executable.segments().all(|segment| segment.is_ok()));
                }
            }
        }
    }
}
