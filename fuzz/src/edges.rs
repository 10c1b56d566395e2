//! Edges: which code an input has reached.
//!
//! Built with LLVM's sanitizer coverage, every edge between two blocks of code has a counter of 8 bits, and before `main` the
//! compiler's code tells where they lie (Clang documentation, "SanitizerCoverage", inline 8bit-counters). Built without, there
//! are only the few that code sets by [`mark`], and the engine changes inputs blindly.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

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

/// The compiler's counters.
fn counters() -> &'static [AtomicU8] {
    let (start, size) = (START.load(Ordering::SeqCst), SIZE.load(Ordering::SeqCst));
    if start == 0 {
        return &[];
    }
    // SAFETY: The compiler's code has said that these bytes are counters; they are static and never unmapped. An `AtomicU8`
    // is a byte, and other threads write them, without order, by plain stores of instrumented code: whatever is read of
    // them is a byte that was written.
    unsafe { std::slice::from_raw_parts(start as *const AtomicU8, size) }
}

/// Sets all counters to 0.
pub fn reset() {
    counters().iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
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
        self.edges.resize(counters.len() + MARKS, 0);
        let counts = counters.iter().map(|counter| counter.load(Ordering::Relaxed)).chain(MARKED.get());
        let mut is_new = false;
        for (seen, count) in self.edges.iter_mut().zip(counts).filter(|(_, count)| *count > 0) {
            let order = order(count);
            is_new |= *seen & order == 0;
            *seen |= order;
        }
        is_new
    }

    /// How many edges were reached.
    #[must_use]
    pub fn count(&self) -> usize {
        self.edges.iter().filter(|&&orders| orders != 0).count()
    }
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
