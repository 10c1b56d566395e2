//! The header of a file: what it is, how large its parts are, and their checksums.

use std::io::Read;

use super::FileResult;
use super::error::{FileError, read_failed};

const MAGIC: [u8; 8] = *b"DuetSnap";
/// The version of the format. It changes with everything that is written, such as the fields of `State`.
pub(super) const VERSION: u32 = 1;
/// Bytes of a header.
const SIZE: usize = 64;
/// Where its own checksum is.
const CRC: usize = 12;

/// The parts, and the most bytes of each that are read.
const PARTS: [(&str, u64); 4] = [
    ("state", 16 << 20),
    ("kernel image", 256 << 20),
    ("list of pages", 64 << 20),
    ("pages", shared_abi::layout::MAX_RAM_SIZE),
];

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// State, image, extents, pages.
    pub(super) parts: [Part; 4],
}

/// A part of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its size in bytes.
    pub(super) size: u64,
    /// Its checksum.
    pub(super) crc: u32,
}

impl Part {
    /// The part with these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { size: bytes.len() as u64, crc: crc32fast::hash(bytes) }
    }

    /// Reads its bytes.
    pub(super) fn read(self, file: &mut impl Read, name: &'static str) -> FileResult<Vec<u8>> {
        let mut bytes = vec![0; self.size as usize];
        file.read_exact(&mut bytes).map_err(read_failed)?;
        if Self::of(&bytes) == self { Ok(bytes) } else { Err(FileError::Damaged(name)) }
    }
}

impl Header {
    /// As it stands in the file.
    pub(super) fn to_bytes(self) -> [u8; SIZE] {
        let mut bytes = [0; SIZE];
        let fields = MAGIC.into_iter().chain(VERSION.to_le_bytes()).chain([0; 4]);
        let sizes = self.parts.iter().flat_map(|part| part.size.to_le_bytes());
        let crcs = self.parts.iter().flat_map(|part| part.crc.to_le_bytes());
        bytes.iter_mut().zip(fields.chain(sizes).chain(crcs)).for_each(|(to, from)| *to = from);
        with_crc(bytes)
    }

    /// Reads the header of a file of `size` bytes, and checks that the parts are all of it.
    pub(super) fn read(file: &mut impl Read, size: u64) -> FileResult<Self> {
        let mut bytes = [0; SIZE];
        if size < SIZE as u64 {
            let mut start = Vec::new();
            file.read_to_end(&mut start).map_err(read_failed)?;
            let is_cut = !start.is_empty() && MAGIC.starts_with(start.get(..MAGIC.len()).unwrap_or(&start));
            let expected = SIZE as u64;
            return Err(if is_cut {
                FileError::WrongSize { has: size, expected }
            } else {
                FileError::NotASnapshot
            });
        }
        file.read_exact(&mut bytes).map_err(read_failed)?;
        let header = Self::parse(&bytes)?;
        let expected = header.parts.iter().fold(SIZE as u64, |sum, part| sum.saturating_add(part.size));
        if expected == size { Ok(header) } else { Err(FileError::WrongSize { has: size, expected }) }
    }

    fn parse(bytes: &[u8; SIZE]) -> FileResult<Self> {
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| bytes[at + index]));
        if !bytes.starts_with(&MAGIC) {
            return Err(FileError::NotASnapshot);
        }
        if word(8) != VERSION {
            return Err(FileError::OtherVersion(word(8)));
        }
        if with_crc(*bytes) != *bytes {
            return Err(FileError::Damaged("header"));
        }
        let parts =
            std::array::from_fn(|index| Part { size: long(16 + 8 * index), crc: word(48 + 4 * index) });
        for (Part { size, .. }, (part, most)) in parts.iter().copied().zip(PARTS) {
            if size > most {
                return Err(FileError::TooLarge { part, size, most });
            }
        }
        Ok(Self { parts })
    }
}

/// The header with its own checksum.
fn with_crc(mut bytes: [u8; SIZE]) -> [u8; SIZE] {
    let place = CRC..CRC + 4;
    bytes[place.clone()].fill(0);
    let crc = crc32fast::hash(&bytes);
    bytes[place].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Writes the checksums that the parts of a file have as they are now, so that only what stands in them can be wrong: for
/// whoever tries what a file may say. The sizes of its parts stay as they are, but the last ends with the file.
pub fn repair_checksums(file: &mut [u8]) {
    let Some((head, body)) = file.split_first_chunk_mut::<SIZE>() else { return };
    head[..8].copy_from_slice(&MAGIC);
    head[8..12].copy_from_slice(&VERSION.to_le_bytes());
    let mut rest: &[u8] = body;
    for index in 0..PARTS.len() {
        let at = 16 + 8 * index;
        let size = u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
        let is_last = index + 1 == PARTS.len();
        let size = if is_last { rest.len() } else { (size as usize).min(rest.len()) };
        let (part, behind) = rest.split_at(size);
        rest = behind;
        head[at..at + 8].copy_from_slice(&(size as u64).to_le_bytes());
        let at = 48 + 4 * index;
        head[at..at + 4].copy_from_slice(&crc32fast::hash(part).to_le_bytes());
    }
    *head = with_crc(*head);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_and_no_flipped_bit_does() {
        let header = Header { parts: [b"one".as_slice(), b"two", b"", b"four"].map(Part::of) };
        let bytes = header.to_bytes();
        let size = SIZE as u64 + 10;
        assert_eq!(Header::read(&mut bytes.as_slice(), size).expect("it was just made"), header);
        for bit in 0..SIZE * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::read(&mut damaged.as_slice(), size).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_part_that_is_too_large_is_not_even_looked_for() {
        let mut header = Header { parts: [Part::of(b""); 4] };
        header.parts[0].size = (16 << 20) + 1;
        let error = Header::read(&mut header.to_bytes().as_slice(), u64::MAX).expect_err("too large");
        assert!(matches!(error, FileError::TooLarge { part: "state", .. }), "{error}");
    }
}
