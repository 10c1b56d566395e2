//! A snapshot as a file, and back; a file that is not one, is damaged, or is of another kind of host is refused.
//!
//! ```text
//!  0 ┌ "DuetSnap"                       8 bytes
//!  8 ├ version                          u32         a file of another version is not read
//! 12 ├ CRC-32 of this header            u32         with zeros in this place
//! 16 ├ sizes of the four parts          4 × u64     together with the header they are the whole file
//! 48 ├ CRC-32 of each                   4 × u32
//! 64 ├ state                            JSON: `Written`, in which registers stand as bytes
//!    ├ image                            the kernel's, so that a death can still be explained
//!    ├ extents                          first GPA and size of each run of pages, lowest first: 2 × u64
//!    └ pages                            their bytes, one run behind the other; all other RAM is zero
//! ```
//!
//! Numbers are little-endian. Nothing of a file is used before its checksum holds, and nothing is believed because of it:
//! a checksum finds damage, not malice. Every size has a limit, every address is checked, the image is opened as any other,
//! and the registers go through the same calls as always.

mod cpu;
mod error;
mod header;
mod written;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use crc32fast::Hasher;
use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;

use super::Snapshot;
use crate::config::MemorySize;
use crate::error::{Error, Result};
use crate::frozen::{FrozenRam, Thaw};
use crate::touched::Extent;
use crate::vm::open_kvm;
use cpu::Cpu;
pub use error::FileError;
pub use header::repair_checksums;
use header::{Header, Part};
use written::Written;

type FileResult<T> = std::result::Result<T, FileError>;

impl Snapshot {
    /// Writes it to a file, which is made anew.
    ///
    /// # Errors
    /// [`Error::SnapshotFile`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let written = File::create(path).map_err(FileError::Write).and_then(|file| {
            let mut file = BufWriter::with_capacity(1 << 20, file);
            self.write_to(&mut file)?;
            file.flush().map_err(FileError::Write)
        });
        written.map_err(|source| Error::SnapshotFile { path: path.to_owned(), source })
    }

    /// Reads one from a file. New machines can go on from it ([`spawn`](Self::spawn)).
    ///
    /// # Errors
    /// [`Error::SnapshotFile`] with what is wrong with it.
    pub fn read(path: &Path) -> Result<Self> {
        let failed = |source| Error::SnapshotFile { path: path.to_owned(), source };
        let read = || {
            let metadata = std::fs::metadata(path).map_err(FileError::Read)?;
            if !metadata.is_file() {
                return Err(FileError::NotAFile);
            }
            let file = File::open(path).map_err(FileError::Read)?;
            Self::read_from(&mut BufReader::with_capacity(1 << 20, file), metadata.len())
        };
        read().map_err(failed)
    }

    /// Writes it somewhere else.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn write_to(&self, file: &mut impl Write) -> FileResult<()> {
        let ram = &self.0.ram;
        let kvm = open_kvm().map_err(|error| FileError::Host(Box::new(error)))?;
        let cpu = Cpu::of(&kvm).map_err(|error| FileError::Host(Box::new(error)))?;
        let state = Written::of(&self.0.state, &self.0.lineage, ram.size(), cpu).to_json()?;
        let image = self.0.lineage.image.bytes().map_err(FileError::Image)?;
        let extents: Vec<u8> = ram
            .pages()
            .iter()
            .flat_map(|extent| [extent.start.0, extent.end.0 - extent.start.0])
            .flat_map(u64::to_le_bytes)
            .collect();
        let mut crc = Hasher::new();
        each_page(ram, |page| {
            crc.update(page);
            Ok(())
        })?;
        let size: u64 = ram.pages().iter().map(|extent| extent.end.0 - extent.start.0).sum();
        let header = Header {
            parts: [
                Part::of(&state),
                Part::of(&image),
                Part::of(&extents),
                Part { size, crc: crc.finalize() },
            ],
        };
        for part in [header.to_bytes().as_slice(), &state, &image, &extents] {
            file.write_all(part).map_err(FileError::Write)?;
        }
        each_page(ram, |page| file.write_all(page).map_err(FileError::Write))
    }

    /// Reads one from somewhere else, which has `size` bytes.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read_from(file: &mut impl Read, size: u64) -> FileResult<Self> {
        let header = Header::read(file, size)?;
        let [state, image, extents, pages] = header.parts;
        let state = state.read(file, "state")?;
        let written = Written::from_json(&state)?;
        let image = image.read(file, "kernel image")?;
        let memory = written.memory()?;
        let extents = check_extents(&extents.read(file, "list of pages")?, memory, pages.size)?;
        let ram = read_pages(file, memory, &extents, pages)?;
        let kvm = open_kvm().map_err(|error| FileError::Host(Box::new(error)))?;
        written.cpu.check(&Cpu::of(&kvm).map_err(|error| FileError::Host(Box::new(error)))?)?;
        let (state, lineage) = written.into_parts(image.into(), memory)?;
        Ok(Self::new(ram, state, Arc::new(lineage)))
    }
}

/// Reads the pages one by one: the whole file never lies in memory twice.
fn read_pages(
    file: &mut impl Read,
    memory: MemorySize,
    extents: &[Extent],
    pages: Part,
) -> FileResult<Arc<FrozenRam>> {
    let host = |error| FileError::Host(Box::new(error));
    let mut thaw = Thaw::new(memory).map_err(host)?;
    let mut crc = Hasher::new();
    let mut page = [0; PAGE_SIZE as usize];
    for Extent { start, end } in extents {
        for gpa in (start.0..end.0).step_by(PAGE_SIZE as usize) {
            file.read_exact(&mut page).map_err(error::read_failed)?;
            crc.update(&page);
            thaw.write(Gpa(gpa), &page).map_err(host)?;
        }
    }
    if crc.finalize() != pages.crc {
        return Err(FileError::Damaged("pages"));
    }
    thaw.freeze().map_err(host)
}

/// The runs of pages, if they are ones: whole pages of RAM, ascending, and as many as there are bytes of them.
fn check_extents(bytes: &[u8], memory: MemorySize, size: u64) -> FileResult<Vec<Extent>> {
    let malformed = |what: String| Err(FileError::Malformed(what));
    let regions = shared_abi::boot_info::ram_regions(memory.bytes());
    let (words, _) = bytes.as_chunks::<8>();
    let (pairs, rest) = words.as_chunks::<2>();
    if !bytes.len().is_multiple_of(16) || !rest.is_empty() {
        return malformed(format!("{} bytes are no list of pages", bytes.len()));
    }
    let mut extents: Vec<Extent> = Vec::with_capacity(pairs.len());
    let mut total = 0_u64;
    for [start, size] in pairs.iter().map(|pair| pair.map(u64::from_le_bytes)) {
        let end = start.checked_add(size).filter(|_| size > 0 && (start | size).is_multiple_of(PAGE_SIZE));
        let is_ram = |end: &u64| regions.iter().any(|region| region.start <= start && *end <= region.end);
        let is_behind = extents.last().is_none_or(|last| last.end.0 <= start);
        let Some(end) = end.filter(is_ram).filter(|_| is_behind) else {
            return malformed(format!(
                "{size:#x} bytes at GPA {start:#x} are no pages of RAM behind the last ones"
            ));
        };
        total += size;
        extents.push(Extent { start: Gpa(start), end: Gpa(end) });
    }
    if total != size {
        return malformed(format!("the list of pages names {total} bytes, and there are {size}"));
    }
    Ok(extents)
}

/// Calls `take` with each page that is not zeros.
fn each_page(ram: &FrozenRam, mut take: impl FnMut(&[u8]) -> FileResult<()>) -> FileResult<()> {
    let mut page = [0; PAGE_SIZE as usize];
    for Extent { start, end } in ram.pages() {
        for gpa in (start.0..end.0).step_by(PAGE_SIZE as usize) {
            let read = ram.view().read(Gpa(gpa), &mut page);
            read.map_err(|outside| FileError::Write(io::Error::other(outside)))?;
            take(&page)?;
        }
    }
    Ok(())
}
