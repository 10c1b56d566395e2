//! The kernel image: an ELF64 executable, checked before anything else exists, then copied into guest memory.
//!
//! An image is a stranger's word. Its headers are checked ([`elf_headers`](super::elf_headers)) before `linux-loader`
//! copies a byte, so that a bad image ends in one sentence and never in a partly started guest.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux_loader::loader::{Elf, KernelLoader};
use shared_abi::Gva;
use shared_abi::needs::NOTE_TYPE;
use vm_memory::GuestAddress;

use crate::boot::contract::{self, find_note};
use crate::boot::elf_headers::{Headers, Segment};
use crate::boot::image_error::ImageError;
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
            Source::File(file) => Headers::read(file, size),
            Source::Bytes(bytes) => Headers::read(bytes, size),
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

    /// The path it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file, as it is now.
    ///
    /// # Errors
    /// When it cannot be read any more.
    pub fn bytes(&self) -> io::Result<Arc<[u8]>> {
        match &self.source {
            Source::File(file) => {
                let mut bytes = vec![0; file.metadata()?.len() as usize];
                file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes.into())
            }
            Source::Bytes(bytes) => Ok(Arc::clone(bytes.get_ref())),
        }
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
                Headers::read(file, size)
            }),
            Source::Bytes(bytes) => {
                let size = bytes.get_ref().len() as u64;
                Headers::read(bytes, size)
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
        let segments = self.notes()?;
        contract::check(segments.iter().map(Vec::as_slice))
            .map_err(|error| self.error(ImageError::Contract(error)))
    }

    /// What the guest asks of its machine: flags of [`shared_abi::needs`]. Without a note it is nothing.
    ///
    /// # Errors
    /// [`Error::Image`] when the file cannot be read any more.
    pub fn needs(&mut self) -> Result<u64> {
        let word = |note: &[u8]| note.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        let segments = self.notes()?;
        Ok(segments
            .iter()
            .filter_map(|segment| find_note(segment, NOTE_TYPE))
            .map(word)
            .fold(0, |a, b| a | b))
    }

    /// The segments of notes, as the file has them.
    fn notes(&mut self) -> Result<Vec<Vec<u8>>> {
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
        Ok(segments)
    }

    /// The host error that says what is wrong with this image.
    #[must_use]
    pub fn error(&self, source: ImageError) -> Error {
        Error::Image { path: self.path.clone(), source }
    }
}

fn open_regular_file(path: &Path) -> std::result::Result<(File, u64), ImageError> {
    // Asked before opening: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(ImageError::Read)?;
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { "a directory" } else { "a device, pipe or socket" };
        return Err(ImageError::NotAFile(kind));
    }
    let file = File::open(path).map_err(ImageError::Read)?;
    Ok((file, metadata.len()))
}
