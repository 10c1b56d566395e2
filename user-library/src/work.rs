//! Work: computing and nothing else, the same for whoever does it.
//!
//! The kernel has these functions in ring 0, the program `computes` in ring 3, compiled in the same way: so the time that
//! each takes tells what a ring costs (`cargo xtask run speed`).

use core::hint::black_box;

/// A piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A hash: shifts and products, each of which needs the one before.
    Hash,
    /// A product of matrices: loads, products and stores.
    Matrix,
}

impl Work {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Hash, Self::Matrix];

    /// The one with this number, which is its place in [`ALL`](Self::ALL).
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    /// Does it, each time: what it starts from is hidden from the compiler. The result tells that it was done.
    #[must_use]
    pub fn run(self) -> u64 {
        match self {
            Self::Hash => hash(black_box(20_000)),
            Self::Matrix => matrix(black_box(8)),
        }
    }
}

/// FNV-1a over the numbers below `count`, a byte of each.
#[inline(never)]
fn hash(count: u64) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for number in 0..count {
        hash = (hash ^ (number & 0xFF)).wrapping_mul(0x100_0000_01B3);
    }
    hash
}

const SIDE: usize = 12;
type Matrix = [[u64; SIDE]; SIDE];

/// A matrix to a power, and the sum of what comes out.
#[inline(never)]
fn matrix(power: u64) -> u64 {
    let mut base: Matrix = [[0; SIDE]; SIDE];
    let mut number = 1_u64;
    for place in base.as_flattened_mut() {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *place = number >> 32;
    }
    let mut product = base;
    for _ in 0..power {
        product = multiplied(&product, &base);
    }
    product.as_flattened().iter().fold(0, |sum, number| sum.wrapping_add(*number))
}

fn multiplied(left: &Matrix, right: &Matrix) -> Matrix {
    let mut product = [[0; SIDE]; SIDE];
    for (row, sums) in left.iter().zip(&mut product) {
        for (factor, line) in row.iter().zip(right) {
            for (sum, number) in sums.iter_mut().zip(line) {
                *sum = factor.wrapping_mul(*number).wrapping_add(*sum);
            }
        }
    }
    product
}

/// Does a piece of work twice, and gives its result and how far the time-stamp counter went meanwhile: the better of
/// both, as the first has caches to fill, and an emulated CPU its translation to make.
#[cfg(target_os = "none")]
#[must_use]
pub fn timed(work: Work) -> (u64, u64) {
    let once = || {
        let start = time_stamp();
        let result = work.run();
        (result, time_stamp().wrapping_sub(start))
    };
    let ((result, first), (_, second)) = (once(), once());
    (result, first.min(second))
}

#[cfg(target_os = "none")]
fn time_stamp() -> u64 {
    // SAFETY: Reads a counter that every x86-64 CPU has; CR4.TSD, which forbids it to ring 3, is 0.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Does a piece of work; on the host nobody asks how long it took.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn timed(work: Work) -> (u64, u64) {
    (work.run(), 0)
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn work_has_one_result() {
        for (number, work) in (0..).zip(Work::ALL) {
            assert_eq!(Work::from_number(number), Some(work));
            assert_eq!(work.run(), work.run());
        }
        assert_eq!(hash(1), 0xCBF2_9CE4_8422_2325_u64.wrapping_mul(0x100_0000_01B3));
    }
}
