//! Whole files on the heap, as in `std::fs`: for those that are small.

use super::File;
use crate::io::{self, Error, Read, Write};
use crate::prelude::*;

/// What is asked for in one exit, in bytes.
const PIECE: usize = 4096;

/// Reads a whole file.
///
/// # Errors
/// As the host's; [`Error::OutOfMemory`] when the heap has no room for it.
pub fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    loop {
        let known = bytes.len();
        bytes.try_reserve(PIECE).map_err(|_| Error::OutOfMemory)?;
        bytes.resize(known + PIECE, 0);
        let count = file.read(bytes.get_mut(known..).unwrap_or_default())?;
        bytes.truncate(known + count);
        if count == 0 {
            return Ok(bytes);
        }
    }
}

/// Reads a whole file of text.
///
/// # Errors
/// As [`read`]; [`Error::NotText`] when it is not UTF-8.
pub fn read_to_string(path: &str) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| Error::NotText)
}

/// Writes a whole file: makes it, or replaces what was in it.
///
/// # Errors
/// As the host's.
pub fn write(path: &str, content: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path)?.write_all(content.as_ref())
}
