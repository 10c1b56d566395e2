//! Gives memory to addresses when they are touched: a page fault, its repair, and the instruction tried again.
//!
//! # What you will see
//!
//! ```console
//! #PF (page fault) at 0xffff806000000000: nothing is there, so let us map page 0
//! 0xffff806000000000 has 100
//! #PF (page fault) at 0xffff806000001008: nothing is there, so let us map page 1
//! 0xffff806000001008 has 101
//! 0xffff806000000000 has 100 still, and nobody noticed
//! 2 faults; page 0 is at 0x…000 in RAM and may be used r--
//! vmm: the guest died: #PF: read of 0xffff806000004000, where nothing is mapped, in … at …
//! …
//! ```
//!
//! # Where to look
//!
//! A program's addresses are not those of RAM. The CPU translates each by four tables; where an entry is missing it
//! raises a page fault, notes the address in CR2, and calls the kernel. If the kernel fills the entry and returns, the
//! CPU tries the instruction again, which now succeeds. So operating systems give memory that was only promised, read
//! files that are only mapped, and bring back what was swapped out.
//!
//! Guest: `guest-kernel/src/memory/paging/mod.rs` fills entries; `guest-kernel/src/exceptions/entry.rs` is where the CPU
//! arrives. Host: `vmm/src/boot/page_tables.rs` wrote the first tables; the fault itself it never sees. When the guest
//! gives up, `vmm/src/debug/diagnosis/mod.rs` walks the tables and says which entry is missing.
//!
//! # Exercises
//!
//! 1. Map pages 4 and more, too: `has 104`, and the program ends well.
//! 2. Map what was wanted by `Rights::READ_WRITE`. The line before the last says `rw-`.
//! 3. `cargo xtask walk 05_page_fault 0xffff806000001008 --at-stop` follows the address from CR3 to the byte.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_kernel::cpu::provoke;
use guest_kernel::exceptions::{self, Frame, Next, Vector};
use guest_kernel::memory::paging::{AddressSpace, Rights};
use guest_kernel::memory::{FREE_ADDRESSES, frames};
use guest_kernel::{Gva, entry, println};
use shared_abi::addr::PAGE_SIZE;

entry!(main);

/// The promised pages.
const PAGES: u64 = 4;
static FAULTS: AtomicU64 = AtomicU64::new(0);

fn main() {
    exceptions::on(Vector::PageFault, map_it);
    let [first, second, far] =
        [0, PAGE_SIZE + 8, PAGES * PAGE_SIZE].map(|offset| Gva(FREE_ADDRESSES + offset));
    println!("{first} has {}", provoke::read(first));
    println!("{second} has {}", provoke::read(second));
    println!("{first} has {} still, and nobody noticed", provoke::read(first));

    let page = AddressSpace::kernel().translate(first).expect("it is mapped");
    let faults = FAULTS.load(Ordering::Relaxed);
    println!("{faults} faults; page 0 is at {} in RAM and may be used {}", page.gpa, page.rights);
    println!("{far} has {}", provoke::read(far));
}

/// Maps the page that was touched, if it was promised, full of its number.
fn map_it(fault: &mut Frame) -> Next {
    let Some(gva) = fault.fault_address() else { return Next::Report };
    let page = gva.0.wrapping_sub(FREE_ADDRESSES) / PAGE_SIZE;
    if page >= PAGES {
        return Next::Report;
    }
    println!("{fault}: nothing is there, so let us map page {page}");
    FAULTS.fetch_add(1, Ordering::Relaxed);
    let Some(mut frame) = frames::allocate() else { return Next::Report };
    frame.bytes_mut().fill(100 + page as u8);
    match AddressSpace::kernel().map_frame(gva.page_start(), frame, Rights::READ) {
        Ok(()) => Next::Resume,
        Err(_) => Next::Report,
    }
}
