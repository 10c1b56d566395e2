//! What a debugger is pointed at. Tests find the lines by the words in their comments.

use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kernel::{print, println};

use crate::Deed;

pub(crate) const DEEDS: &[Deed] = &[
    ("debuggee", debuggee),
    ("debuggee-loop", debuggee_loop),
    ("debuggee-panic", || debuggee_panic(7)),
    ("debuggee-int3", debuggee_int3),
];

/// Something with fields to look at.
#[derive(Clone, Copy)]
struct Point {
    x: u64,
    y: u64,
}

/// What a watchpoint is set on.
static WATCHED: AtomicU64 = AtomicU64::new(0);

#[inline(never)]
fn debuggee() {
    let first = black_box(20); // line: first
    let point = Point { x: first, y: first + 2 }; // line: point
    let sum = add(point); // line: sum
    WATCHED.store(sum, Ordering::Relaxed); // line: store
    println!("the sum is {sum}"); // line: print
    print!("x={} ", black_box(point).x); // line: last
    println!("done");
}

#[inline(never)]
fn add(point: Point) -> u64 {
    let Point { x, y } = black_box(point);
    x + y // line: add
}

/// Runs until a debugger sets the flag.
#[inline(never)]
fn debuggee_loop() {
    println!("looping");
    while WATCHED.load(Ordering::Relaxed) == 0 {
        turn(black_box(1)); // line: loop
    }
    println!("released");
}

#[inline(never)]
fn turn(count: u64) -> u64 {
    black_box(count) + 1 // line: turn
}

#[inline(never)]
fn debuggee_panic(code: u64) {
    assert!(black_box(code) == 0, "debuggee_panic was called with {code}"); // line: panic
}

/// An `int3` of the guest's own: with no handler it is deadly, unless a debugger steps in.
fn debuggee_int3() {
    // SAFETY: `int3` changes nothing; what happens then is the point.
    unsafe { asm!("int3", options(nomem, nostack)) };
    println!("behind int3");
}
