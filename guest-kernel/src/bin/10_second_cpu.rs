//! Has every CPU of the machine work at once: parts of a sum, and a counter that all of them increment.
//!
//! # What you will see
//!
//! ```console
//! $ cargo xtask run 10_second_cpu --cpus 4
//! this is CPU 0 of 4
//! CPU 0 has added 1..250: 31125
//! CPU 1 has added 250..500: 93625
//! CPU 2 has added 500..750: 156125
//! CPU 3 has added 750..1000: 218625
//! the sum of all is 499500
//! all together have counted to 2000
//! $ cargo xtask run 10_second_cpu
//! this is CPU 0 of 1
//! CPU 0 has added 1..1000: 499500
//! the sum of all is 499500
//! all together have counted to 500
//! ```
//!
//! # Where to look
//!
//! A machine starts on one CPU; the others wait until somebody starts them. Guest: `spawn_on` in
//! `guest-kernel/src/smp/work.rs` puts the work into a CPU's queue, and the first work for a CPU starts it
//! (`guest-kernel/src/smp/start.rs`). Each CPU needs a stack and a TSS of its own, and knows itself by the latter
//! (`guest-kernel/src/cpu/id.rs`). On hardware it would begin in real mode: `guest-kernel/src/smp/trampoline.rs`.
//!
//! Host: a CPU is a thread that calls KVM_RUN (`vmm/src/crew.rs`). `StartCpu` sets the registers of one that waits
//! (`vmm/src/hypercall/cpus.rs`). They share memory because they are threads of one process.
//!
//! # Exercises
//!
//! 1. Run it with `--cpus 64`. The sum stays, and `all together have counted to 32000`.
//! 2. Increment by `COUNT.store(COUNT.load(Ordering::Relaxed) + 1, Ordering::Relaxed)`. Now some are lost: two CPUs read
//!    the same number. `fetch_add` is one instruction with a `lock` prefix, which no other CPU can come between.
//! 3. Have CPU 2 panic: `assert_ne!(cpu.number(), 2)` in `count`. The host says `the guest panicked … on vCPU 2`, and
//!    where the others were.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kernel::prelude::*;
use guest_kernel::smp::{self, CpuId, JoinHandle, spawn_on};
use guest_kernel::{entry, println};

entry!(main);

/// What is added up.
const END: u64 = 1000;
/// How far each CPU counts.
const EACH: u64 = 500;

static COUNT: AtomicU64 = AtomicU64::new(0);

fn main() {
    println!("this is {} of {}", smp::id(), smp::count());

    let parts: Vec<_> = smp::cpus().map(|cpu| spawn_on(cpu, move || add(part(cpu)))).collect();
    let mut total = 0;
    for (cpu, sum) in smp::cpus().zip(parts.into_iter().map(JoinHandle::join)) {
        let Range { start, end } = part(cpu);
        println!("{cpu} has added {start}..{end}: {sum}");
        total += sum;
    }
    println!("the sum of all is {total}");

    let counters: Vec<_> = smp::cpus().map(|cpu| spawn_on(cpu, move || count(cpu))).collect();
    counters.into_iter().for_each(JoinHandle::join);
    println!("all together have counted to {}", COUNT.load(Ordering::Relaxed));
}

/// The part of the numbers that is for `cpu`.
fn part(cpu: CpuId) -> Range<u64> {
    let size = END / smp::count() as u64;
    let start = cpu.number() as u64 * size;
    let is_last = cpu.number() + 1 == smp::count();
    start.max(1)..if is_last { END } else { start + size }
}

fn add(numbers: Range<u64>) -> u64 {
    numbers.sum()
}

fn count(_: CpuId) {
    for _ in 0..EACH {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}
