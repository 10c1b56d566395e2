//! RAM far away.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_kernel::{boot_info, println};

use crate::Deed;

pub(crate) const DEEDS: &[Deed] = &[("far-memory", far_memory)];

/// Reads, writes and counts up in RAM that nobody has touched, from its first free page to its last.
fn far_memory() {
    let [low, high] = boot_info().ram;
    let ends = if high.size() > 0 { [low.end, high.end] } else { [low.end, low.end] };
    for gpa in [64 << 20, ends[0] - 8, high.start, high.start + high.size() / 2, ends[1] - 8] {
        if gpa >= low.end && (gpa < high.start || gpa >= high.end) {
            continue;
        }
        // SAFETY: The address is a multiple of 8 in RAM that the first page tables map to itself, far from image, stack
        // and tables, and atomics may be read and written by anyone.
        let word = unsafe { &*(gpa as *const AtomicU64) };
        assert_eq!(word.load(Ordering::Relaxed), 0, "RAM starts as zero; at {gpa:#x}");
        word.store(gpa, Ordering::Relaxed);
        word.fetch_add(1, Ordering::Relaxed);
        assert_eq!(word.load(Ordering::Relaxed), gpa + 1, "at {gpa:#x}");
        word.store(0, Ordering::Relaxed);
    }
    println!("all of it remembers");
}
