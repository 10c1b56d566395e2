//! Ten thousand broken guests: a real image cut short, with bits flipped, with fields of its headers replaced.
//!
//! Whatever the bytes say, the VMM answers with a machine or with one line; and whatever such a machine then does,
//! the run ends. The random numbers start from a fixed seed, so a failure names changes that fail again.

use std::error::Error as _;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use fuzz::mutate::{Change, Random, TROUBLE};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};
use vmm::boot::{self, kernel::KernelImage};
use vmm::memory::GuestMemory;
use vmm::{Error, KernelSource, RunReport, Vm, VmConfig};

use crate::harness::{guest, patiently, slowness};

const BROKEN_IMAGES: u64 = 12_000;
const BROKEN_RUNS: u64 = 1000;

/// The ELF header and three program headers: where a flipped bit does most.
const HEADERS_SIZE: usize = 64 + 3 * 56;

#[test]
fn an_image_cut_at_any_byte_is_refused() {
    let image = RealImage::read();
    within(Duration::from_secs(60), move || {
        for size in (0..image.bytes.len()).step_by(slowness() as usize) {
            let error = guarded(&size, || load(&image.bytes[..size])).expect_err("bytes are missing");
            let complaint = match size {
                0 => "the file is empty".to_owned(),
                1..4 => "it is not an ELF file".to_owned(),
                _ if size < image.loaded_size => format!("the file has {size}"),
                _ => "it carries no contract".to_owned(),
            };
            assert!(line(&error).contains(&complaint), "cut at {size}: {}", line(&error));
        }
        load(&image.bytes).expect("nothing is missing");
    });
}

#[test]
fn a_broken_image_makes_a_machine_or_an_error_and_never_a_panic() {
    let image = RealImage::read();
    within(Duration::from_secs(60), move || {
        let (mut loaded, count) = (0, tried(BROKEN_IMAGES));
        for seed in 0..count {
            let (broken, changes) = image.broken(seed, Place::Anywhere);
            match guarded(&changes, || load(&broken)) {
                Ok(()) => loaded += 1,
                Err(error) => assert_one_line(&line(&error), &changes),
            }
        }
        // Neither all nor none: the changes hit what matters, and not only the first check.
        let many = count / 10..count * 9 / 10;
        assert!(many.contains(&loaded), "{loaded} were loaded");
    });
}

#[test]
fn a_broken_guest_ends_and_never_takes_the_vmm_with_it() {
    let image = RealImage::read();
    within(Duration::from_secs(120), move || {
        for seed in 0..tried(BROKEN_RUNS) {
            // Most have good headers, and so always start.
            let place = if seed % 4 == 0 { Place::Anywhere } else { Place::CodeAndData };
            let (broken, changes) = image.broken(seed, place);
            match guarded(&changes, || run(&broken)) {
                Ok(report) => assert_one_line(&report.to_string(), &changes),
                Err(error) => assert_one_line(&line(&error), &changes),
            }
        }
    });
}

/// How many are tried: fewer where everything is slower.
fn tried(wanted: u64) -> u64 {
    wanted / u64::from(slowness())
}

/// All that is done before KVM is opened.
fn load(image: &[u8]) -> vmm::Result<()> {
    let config = VmConfig::new(KernelSource::Bytes(image.into()));
    let mut image = KernelImage::open(&config.kernel)?;
    let memory = GuestMemory::allocate(config.memory, config.backing)?;
    boot::prepare(&config, &mut image, &memory).map(drop)
}

fn run(image: &[u8]) -> vmm::Result<RunReport> {
    let mut config = VmConfig::new(KernelSource::Bytes(image.into()));
    config.timeout = Some(Duration::from_millis(50));
    Vm::build(config)?.run()
}

/// A real guest, without debugging information, which no loader reads.
struct RealImage {
    bytes: Vec<u8>,
    /// Where the bytes end that are loaded; notes follow.
    loaded_size: usize,
}

impl RealImage {
    fn read() -> Self {
        let mut bytes = fs::read(guest("01_hello")).expect("the guest was built");
        let header = FileHeader64::<LittleEndian>::parse(&*bytes).expect("an ELF64 file");
        let segments = header.program_headers(LittleEndian, &*bytes).expect("program headers");
        let end_of = |kind| {
            let of_kind = segments.iter().filter(|segment| segment.p_type(LittleEndian) == kind);
            let ends = of_kind.map(|segment| segment.p_offset(LittleEndian) + segment.p_filesz(LittleEndian));
            ends.max().expect("a guest has loadable segments and notes") as usize
        };
        let (loaded_size, size) = (end_of(PT_LOAD), end_of(PT_NOTE));
        assert!(HEADERS_SIZE < loaded_size && loaded_size < size, "the notes lie behind what is loaded");
        bytes.truncate(size);
        Self { bytes, loaded_size }
    }

    /// The image with a few changes; many in code, of which only little is ever executed.
    fn broken(&self, seed: u64, place: Place) -> (Vec<u8>, Vec<Change>) {
        let mut random = Random(seed);
        let changes: Vec<Change> = match place {
            Place::Anywhere => (0..=random.below(4)).map(|_| change(&mut random, self.bytes.len())).collect(),
            Place::CodeAndData => {
                (0..=random.below(40)).map(|_| flip(&mut random, HEADERS_SIZE, self.loaded_size)).collect()
            }
        };
        let mut bytes = self.bytes.clone();
        for change in &changes {
            change.make(&mut bytes);
        }
        (bytes, changes)
    }
}

/// Where changes are made.
enum Place {
    /// Two in three in the headers.
    Anywhere,
    /// Neither in the headers nor in the notes.
    CodeAndData,
}

/// A change somewhere in an image of `size` bytes, most likely in its headers.
fn change(random: &mut Random, size: usize) -> Change {
    let byte = random.below(HEADERS_SIZE);
    match random.below(6) {
        0 => Change::SetByte { byte, value: random.next() as u8 },
        // The fields that hold addresses and sizes are aligned.
        1 => Change::SetWord { byte: byte & !7, value: TROUBLE[random.below(TROUBLE.len())] },
        2 | 3 => flip(random, 0, HEADERS_SIZE),
        _ => flip(random, HEADERS_SIZE, size),
    }
}

fn flip(random: &mut Random, start: usize, end: usize) -> Change {
    Change::FlipBit { byte: start + random.below(end - start), bit: random.below(8) }
}

/// Does `work`; when it panics, says which changes made it.
fn guarded<T>(changes: &dyn std::fmt::Debug, work: impl FnOnce() -> T) -> T {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| panic!("a panic, made by {changes:x?}"))
}

/// Does `work` on a thread of its own, so that a hang fails the test instead of being it.
fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let limit = patiently(limit);
    let (done, is_done) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    if is_done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("not done after {limit:?}");
    }
    worker.join().expect("the worker's own message says more");
}

/// The error and its causes, as `vmm` prints them.
fn line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(&format!(": {error}"));
        cause = error.source();
    }
    line
}

fn assert_one_line(text: &str, changes: &[Change]) {
    assert!(!text.is_empty() && !text.contains('\n'), "{text:?}, made by {changes:x?}");
}
