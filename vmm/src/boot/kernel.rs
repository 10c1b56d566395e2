//! The kernel image: checked before anything else exists, then copied into guest memory.
//!
//! There are three forms. 64-bit code comes as an ELF64 executable, code of 16 and 32 bits as ELF32; and any code may be a
//! *flat* image, bytes without headers, for which somebody else must say where they go and where they start.
//!
//! An image is a stranger's word. Its headers are checked ([`elf_headers`](super::elf_headers)) before `linux-loader`
//! copies a byte, so that a bad image ends in one sentence and never in a partly started guest.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux_loader::loader::{Elf, KernelLoader};
use object::elf::ELFMAG;
use shared_abi::needs::NOTE_TYPE;
use shared_abi::{Gpa, Gva};
use vm_memory::GuestAddress;

use crate::boot::contract::{self, find_note};
use crate::boot::cpu_mode::StartMode;
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
    start: Start,
    headers: Headers,
    /// The segments of notes, once somebody has asked for one.
    notes: Option<Vec<Vec<u8>>>,
}

/// How an image is to be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The mode that its code is for.
    pub mode: StartMode,
    /// Where a flat image goes; `None` for an ELF file, which says it itself.
    pub flat: Option<Flat>,
}

/// Where a flat image goes, and where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flat {
    /// The place of its first byte.
    pub load_at: Gpa,
    /// Its first instruction.
    pub entry: Gva,
}

#[derive(Debug)]
enum Source {
    File(File),
    Bytes(Cursor<Arc<[u8]>>),
}

impl KernelImage {
    /// Opens an image as ours are: an ELF64 executable for long mode.
    ///
    /// # Errors
    /// [`Error::Image`] with the reason.
    pub fn open(source: &KernelSource) -> Result<Self> {
        Self::open_as(source, Start::default())
    }

    /// Opens an image and checks all that can be checked of it alone.
    ///
    /// # Errors
    /// [`Error::Image`] with the reason.
    pub fn open_as(source: &KernelSource, start: Start) -> Result<Self> {
        match source {
            KernelSource::File(path) => Self::from_file(path.clone(), start),
            KernelSource::Bytes(bytes) => {
                let path = PathBuf::from("(image in memory)");
                Self::check(path, Source::Bytes(Cursor::new(Arc::clone(bytes))), start)
            }
        }
    }

    fn from_file(path: PathBuf, start: Start) -> Result<Self> {
        match open_regular_file(&path) {
            Ok(file) => Self::check(path, Source::File(file), start),
            Err(source) => Err(Error::Image { path, source }),
        }
    }

    fn check(path: PathBuf, mut source: Source, start: Start) -> Result<Self> {
        match source.headers(start) {
            Ok(headers) => Ok(Self { path, source, start, headers, notes: None }),
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

    /// How it was to be understood.
    #[must_use]
    pub fn start(&self) -> Start {
        self.start
    }

    /// The mode that its code is for.
    #[must_use]
    pub fn mode(&self) -> StartMode {
        self.start.mode
    }

    /// Whether it is bytes without headers.
    #[must_use]
    pub fn is_flat(&self) -> bool {
        self.start.flat.is_some()
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
        if self.start == Start::default() {
            self.load_elf64(memory)?;
        } else {
            self.copy_segments(memory).map_err(|error| self.error(ImageError::Read(error)))?;
        }
        // The headers were read, then the bytes. Had they changed, what lies in memory was never checked.
        match self.source.headers(self.start) {
            Ok(headers) if headers == self.headers => Ok(()),
            _ => Err(self.error(ImageError::Changed)),
        }
    }

    fn load_elf64(&mut self, memory: &GuestMemory) -> Result<()> {
        // An offset, even of 0, tells linux-loader not to look for the notes of other boot protocols.
        let offset = Some(GuestAddress(0));
        let loaded = match &mut self.source {
            Source::File(file) => Elf::load(memory.as_vm_memory(), offset, file, None),
            Source::Bytes(bytes) => Elf::load(memory.as_vm_memory(), offset, bytes, None),
        };
        loaded.map(drop).map_err(|error| self.error(ImageError::Load(error)))
    }

    /// What linux-loader does for ELF64, for the forms that it does not know.
    fn copy_segments(&mut self, memory: &GuestMemory) -> io::Result<()> {
        let mut buffer = vec![0; COPY_SIZE];
        for segment in &self.headers.segments {
            let mut done = 0;
            while done < segment.file_size {
                let size = (segment.file_size - done).min(COPY_SIZE as u64);
                let part = buffer.get_mut(..size as usize).expect("at most COPY_SIZE");
                self.source.read_exact_at(part, segment.file_offset + done)?;
                memory.write(Gpa(segment.start.0 + done), part).expect("the plan found the segment in RAM");
                done += size;
            }
        }
        Ok(())
    }

    /// Checks that the guest was built against the contract that this VMM knows.
    ///
    /// # Errors
    /// [`Error::Image`] with what differs.
    pub fn check_contract(&mut self) -> Result<()> {
        let checked = contract::check(self.notes()?.iter().map(Vec::as_slice));
        checked.map_err(|error| self.error(ImageError::Contract(error)))
    }

    /// What the guest asks of its machine: flags of [`shared_abi::needs`]. Without a note it is nothing.
    ///
    /// # Errors
    /// [`Error::Image`] when the file cannot be read any more.
    pub fn needs(&mut self) -> Result<u64> {
        let word = |note: &[u8]| note.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        Ok(self
            .notes()?
            .iter()
            .filter_map(|segment| find_note(segment, NOTE_TYPE))
            .map(word)
            .fold(0, |a, b| a | b))
    }

    /// The segments of notes, as the file has them when it is first asked for.
    fn notes(&mut self) -> Result<&[Vec<u8>]> {
        let segments = match self.notes.take() {
            Some(segments) => segments,
            None => self.read_notes().map_err(|error| self.error(ImageError::Read(error)))?,
        };
        Ok(self.notes.insert(segments))
    }

    fn read_notes(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let Self { source, headers, .. } = self;
        let read = |&(offset, size): &(u64, usize)| {
            let mut bytes = vec![0; size];
            source.read_exact_at(&mut bytes, offset).map(|()| bytes)
        };
        headers.notes.iter().map(read).collect()
    }

    /// The host error that says what is wrong with this image.
    #[must_use]
    pub fn error(&self, source: ImageError) -> Error {
        Error::Image { path: self.path.clone(), source }
    }
}

/// Bytes that are copied at once.
const COPY_SIZE: usize = 1 << 20;

impl Source {
    /// Reads and checks the headers, of the file as it is now.
    fn headers(&mut self, start: Start) -> std::result::Result<Headers, ImageError> {
        let size = match self {
            Self::File(file) => file.metadata().map_err(ImageError::Read)?.len(),
            Self::Bytes(bytes) => bytes.get_ref().len() as u64,
        };
        if let Some(Flat { load_at, entry }) = start.flat {
            let mut magic = [0; 4];
            if self.read_exact_at(&mut magic, 0).is_ok() && magic == ELFMAG {
                return Err(ImageError::ElfAsFlat);
            }
            return Headers::of_flat(load_at, size, entry, start.mode);
        }
        match self {
            Self::File(file) => Headers::read(file, size, start.mode),
            Self::Bytes(bytes) => Headers::read(bytes, size, start.mode),
        }
    }

    fn read_exact_at(&mut self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, offset),
            Self::Bytes(bytes) => bytes.seek(SeekFrom::Start(offset)).and_then(|_| bytes.read_exact(buffer)),
        }
    }
}

fn open_regular_file(path: &Path) -> std::result::Result<File, ImageError> {
    // Asked before opening: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(ImageError::Read)?;
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { "a directory" } else { "a device, pipe or socket" };
        return Err(ImageError::NotAFile(kind));
    }
    File::open(path).map_err(ImageError::Read)
}
