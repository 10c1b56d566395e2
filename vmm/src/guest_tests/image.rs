//! `TestImage`: an image that holds tests, and the list of them.
//!
//! `shared-abi/src/guest_test.rs` draws how the list lies in the file: a note leads to records, a record to its texts.
//! The addresses are those that the program will have in memory; the image's segments say where in the file that is.
//! An image is a stranger's word: an address that leads nowhere ends in a sentence.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object::elf::FileHeader64;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{LittleEndian, elf};
use shared_abi::guest_test::{ANY, Ending, NOTE_TYPE, TestRecord, UNLIMITED};
use shared_abi::{Gva, Vector};

use crate::boot::contract::find_note;
use crate::boot::kernel::KernelImage;
use crate::config::KernelSource;
use crate::coverage::{LineTable, LineTableError};
use crate::cpus::VcpuCount;
use crate::error::Error;

/// An image that holds tests.
#[derive(Debug)]
pub struct TestImage {
    bytes: Arc<[u8]>,
    tests: Vec<GuestTest>,
}

/// A test, and what it promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestTest {
    /// Its place in the image's own list.
    pub index: usize,
    /// Its function.
    pub function: Gva,
    /// Its path, without the crate.
    pub name: String,
    /// The source file.
    pub file: String,
    /// The line in it.
    pub line: u64,
    /// How it ends.
    pub end: End,
    /// What it prints, among other things.
    pub prints: String,
    /// The most exits that it causes, beside the one that ends it.
    pub max_exits: Option<u64>,
    /// The most instructions that it executes.
    pub max_instructions: Option<u64>,
    /// How long it takes at most.
    pub timeout: Option<Duration>,
    /// Whether it runs only when asked for.
    pub is_ignored: bool,
    /// How many vCPUs its machine has.
    pub vcpus: VcpuCount,
}

/// How a test ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// With this code.
    Exit(u32),
    /// By an exception that nothing handles.
    Fault {
        /// Which; `None` for any, a triple fault included.
        vector: Option<Vector>,
        /// Which address's access the page tables do not allow; `None` for any.
        address: Option<Gva>,
    },
}

/// Why a list of tests cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TestListError {
    /// An image that was not built to be tested.
    #[error("it has no list of tests: `cargo test` builds those that have one")]
    None,
    /// The file cannot be read.
    #[error("cannot read the file")]
    Read(#[source] io::Error),
    /// An address that leads nowhere.
    #[error("{what} should be {size:#x} bytes at {gva}, where the file has none")]
    Nowhere {
        /// What should be there.
        what: &'static str,
        /// Where.
        gva: Gva,
        /// How much of it.
        size: u64,
    },
    /// A value that means nothing.
    #[error("{what} has the value or size {value:#x}, which means nothing")]
    Meaningless {
        /// The field.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
}

impl TestImage {
    /// Opens an image; `None` when it was not built to be tested.
    ///
    /// # Errors
    /// What is wrong with the image or its list.
    pub fn open(path: &Path) -> crate::Result<Option<Self>> {
        // Asked first: it refuses what is no regular file, which reading could wait for.
        KernelImage::open(&KernelSource::File(path.to_owned()))?;
        let unread = |source| Error::TestList { path: path.to_owned(), source: TestListError::Read(source) };
        Self::from_bytes(std::fs::read(path).map_err(unread)?.into(), path)
    }

    /// As [`open`](Self::open), with the bytes of the file at `path`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_bytes(bytes: Arc<[u8]>, path: &Path) -> crate::Result<Option<Self>> {
        let list_error = |source| Error::TestList { path: path.to_owned(), source };
        let mut image = KernelImage::open(&KernelSource::Bytes(Arc::clone(&bytes)))?;
        let file = Segments::of(&bytes);
        let Some(note) = file.note() else {
            return Ok(None);
        };
        // What the words of a record mean is part of the contract.
        image.check_contract()?;
        let tests = file.tests(note).map_err(list_error)?;
        Ok(Some(Self { bytes, tests }))
    }

    /// The tests, by name.
    #[must_use]
    pub fn tests(&self) -> &[GuestTest] {
        &self.tests
    }

    /// The lines of the image's source, for [`Coverage`](crate::coverage::Coverage).
    ///
    /// # Errors
    /// Why it has none.
    pub fn lines(&self) -> Result<LineTable, LineTableError> {
        LineTable::read(&self.bytes)
    }

    /// The image itself.
    #[must_use]
    pub fn kernel(&self) -> KernelSource {
        KernelSource::Bytes(Arc::clone(&self.bytes))
    }
}

type Header = elf::ProgramHeader64<LittleEndian>;

/// A longer text is not read: many records may lead to the same one.
const MAX_TEXT_SIZE: u64 = 4096;

/// The file, as its segments see it.
struct Segments<'a> {
    file: &'a [u8],
    headers: &'a [Header],
}

impl<'a> Segments<'a> {
    /// Headers that cannot be read are none; [`KernelImage`] has checked them before.
    fn of(file: &'a [u8]) -> Self {
        let headers = FileHeader64::<LittleEndian>::parse(file)
            .and_then(|header| header.program_headers(LittleEndian, file))
            .unwrap_or_default();
        Self { file, headers }
    }

    /// The note that leads to the tests, if there is one.
    fn note(&self) -> Option<&'a [u8]> {
        let notes = self.headers.iter().filter(|header| header.p_type(LittleEndian) == elf::PT_NOTE);
        let mut segments = notes.filter_map(|header| header.data(LittleEndian, self.file).ok());
        segments.find_map(|segment| find_note(segment, NOTE_TYPE))
    }

    /// The bytes that the program will find at an address.
    fn bytes(&self, what: &'static str, gva: Gva, size: u64) -> Result<&'a [u8], TestListError> {
        let loaded = self.headers.iter().filter(|header| header.p_type(LittleEndian) == elf::PT_LOAD);
        let mut found =
            loaded.filter_map(|header| header.data_range(LittleEndian, self.file, gva.0, size).ok()?);
        found.next().ok_or(TestListError::Nowhere { what, gva, size })
    }

    fn text(&self, what: &'static str, gva: Gva, size: u64) -> Result<String, TestListError> {
        match size {
            0 => Ok(String::new()),
            1..=MAX_TEXT_SIZE => Ok(String::from_utf8_lossy(self.bytes(what, gva, size)?).into_owned()),
            _ => Err(TestListError::Meaningless { what, value: size }),
        }
    }

    /// Text that is shown, perhaps on a terminal.
    fn shown(&self, what: &'static str, gva: Gva, size: u64) -> Result<String, TestListError> {
        Ok(self.text(what, gva, size)?.replace(char::is_control, "\u{FFFD}"))
    }

    fn tests(&self, note: &[u8]) -> Result<Vec<GuestTest>, TestListError> {
        let [from, to] = words(note);
        let table = self.bytes("the list of tests", Gva(from), to.saturating_sub(from))?;
        let records = table.chunks_exact(TestRecord::SIZE).map(words).map(TestRecord::from_words);
        let tests = records.enumerate().map(|(index, record)| self.test(index, &record));
        let mut tests = tests.collect::<Result<Vec<_>, _>>()?;
        tests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(tests)
    }

    fn test(&self, index: usize, record: &TestRecord) -> Result<GuestTest, TestListError> {
        Ok(GuestTest {
            index,
            function: record.run,
            name: self.shown("the name of a test", record.name, record.name_size)?,
            file: self.shown("the file of a test", record.file, record.file_size)?,
            line: record.line,
            end: end(record)?,
            prints: self.text("what a test prints", record.prints, record.prints_size)?,
            max_exits: limit(record.max_exits),
            max_instructions: limit(record.max_instructions),
            timeout: limit(record.timeout_ms).map(Duration::from_millis),
            is_ignored: record.ignored != 0,
            vcpus: vcpus(record)?,
        })
    }
}

fn end(record: &TestRecord) -> Result<End, TestListError> {
    let meaningless = |what, value| TestListError::Meaningless { what, value };
    match Ending::from_number(record.ending) {
        Some(Ending::Exit) => {
            let code = u32::try_from(record.code)
                .map_err(|_| meaningless("the exit code of a test", record.code))?;
            Ok(End::Exit(code))
        }
        Some(Ending::Fault) => {
            let vector = told(record.vector).map(|number| {
                Vector::from_number(number).ok_or_else(|| meaningless("the exception of a test", number))
            });
            Ok(End::Fault { vector: vector.transpose()?, address: told(record.address).map(Gva) })
        }
        None => Err(meaningless("the ending of a test", record.ending)),
    }
}

/// Instructions are counted on one vCPU only.
fn vcpus(record: &TestRecord) -> Result<VcpuCount, TestListError> {
    let meaningless = TestListError::Meaningless { what: "the number of CPUs of a test", value: record.cpus };
    match VcpuCount::new(record.cpus) {
        Ok(VcpuCount::ONE) => Ok(VcpuCount::ONE),
        Ok(several) if limit(record.max_instructions).is_none() => Ok(several),
        _ => Err(meaningless),
    }
}

fn told(value: u64) -> Option<u64> {
    (value != ANY).then_some(value)
}

fn limit(value: u64) -> Option<u64> {
    (value != UNLIMITED).then_some(value)
}

/// The first little-endian words of `bytes`; what is not there is 0.
fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut chunks = bytes.chunks_exact(8);
    [(); N].map(|()| {
        let word = chunks.next().and_then(|chunk| chunk.try_into().ok());
        word.map_or(0, u64::from_le_bytes)
    })
}
