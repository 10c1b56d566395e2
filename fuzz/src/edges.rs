//! Edges: which code an input has reached.
//!
//! Built with LLVM's sanitizer coverage, every edge between two blocks of code has a counter of 8 bits, and before `main` the
//! compiler's code tells where they lie (Clang documentation, "SanitizerCoverage", inline 8bit-counters). Built without, there
//! are only the few that code sets by [`mark`], and the engine changes inputs blindly.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of code that is not instrumented: tests of the engine, which run side by side.
const MARKS: usize = 16;

thread_local! {
    static MARKED: Cell<[u8; MARKS]> = const { Cell::new([0; MARKS]) };
}

/// Where the compiler's counters lie: the linker puts those of all modules behind one another.
static START: AtomicUsize = AtomicUsize::new(0);
static SIZE: AtomicUsize = AtomicUsize::new(0);

/// Called by the compiler's code before `main`, once by each module, always with the range of all.
///
/// # Safety
/// The range is that of the counters, which live as long as the program.
#[unsafe(no_mangle)]
unsafe extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, end: *mut u8) {
    START.store(start as usize, Ordering::SeqCst);
    SIZE.store(end as usize - start as usize, Ordering::SeqCst);
}

/// Counts that a place was reached, in code that is not instrumented.
pub fn mark(place: usize) {
    let mut marked = MARKED.get();
    if let Some(counter) = marked.get_mut(place) {
        *counter = 1;
    }
    MARKED.set(marked);
}

/// Eight counters in a word: most are 0, and are passed over together.
fn counters() -> &'static [AtomicU64] {
    let (start, size) = (START.load(Ordering::SeqCst), SIZE.load(Ordering::SeqCst));
    // The few at both ends that fill no word are left out.
    let first = start.next_multiple_of(WORD);
    let words = (start + size).saturating_sub(first) / WORD;
    if start == 0 || words == 0 {
        return &[];
    }
    // SAFETY: The compiler's code has said that these bytes are counters; they are static and never unmapped. The address is
    // a multiple of a word's size, and the range ends within them. Other threads write single bytes of them, by plain stores
    // of instrumented code, without order: whatever is read is some of the bytes that were written.
    unsafe { std::slice::from_raw_parts(first as *const AtomicU64, words) }
}

const WORD: usize = size_of::<u64>();

/// Sets all counters to 0.
pub fn reset() {
    for word in counters().iter().filter(|word| word.load(Ordering::Relaxed) != 0) {
        word.store(0, Ordering::Relaxed);
    }
    MARKED.set([0; MARKS]);
}

/// What all inputs so far have reached.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// For each edge the orders of magnitude in which it was counted.
    edges: Vec<u8>,
}

impl Seen {
    /// Adds what was counted since the last [`reset`]; says whether any of it is new.
    pub fn add(&mut self) -> bool {
        let counters = counters();
        self.edges.resize(counters.len() * WORD + MARKS, 0);
        let (edges, marked) = self.edges.split_at_mut(counters.len() * WORD);
        let mut is_new = add_counts(marked, MARKED.get());
        for (edges, word) in edges.chunks_exact_mut(WORD).zip(counters) {
            match word.load(Ordering::Relaxed) {
                0 => {}
                counts => is_new |= add_counts(edges, counts.to_le_bytes()),
            }
        }
        is_new
    }

    /// How many edges were reached.
    #[must_use]
    pub fn count(&self) -> usize {
        self.edges.iter().filter(|&&orders| orders != 0).count()
    }
}

/// Adds a few counts; says whether any of them is new.
fn add_counts<const N: usize>(edges: &mut [u8], counts: [u8; N]) -> bool {
    let mut is_new = false;
    for (seen, count) in edges.iter_mut().zip(counts) {
        let order = order(count);
        is_new |= *seen & order != order;
        *seen |= order;
    }
    is_new
}

/// 1, 2, 3, 4 to 7, 8 to 15, 16 to 31, 32 to 127, more: a loop that runs once more is nothing new.
fn order(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..8 => 8,
        8..16 => 16,
        16..32 => 32,
        32..128 => 64,
        128.. => 128,
    }
}

/// Whether the compiler counts edges.
#[must_use]
pub fn are_counted() -> bool {
    !counters().is_empty()
}
