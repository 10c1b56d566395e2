//! Makes the addresses of devices usable: maps the start of the device hole to itself, and the interrupt controllers.
//!
//! The first page tables map RAM only. The hole, from 3 GiB to 4 GiB, is exactly entry 3 of the first page-directory-
//! pointer table. That entry gets a page directory of ours, which maps 2 MiB for each of them, not cached.

use shared_abi::{interrupts, layout};

/// The page directory of the hole.
#[repr(C, align(4096))]
struct Directory([u64; 512]);

/// Maps the first 2 MiB of the device hole and those with interrupt controllers; doing so again changes nothing. `None` when there is no page directory
/// pointer table where the VMM puts one.
pub fn map_hole() -> Option<()> {
    use core::sync::atomic::{AtomicU64, Ordering};

    static DIRECTORY: Directory = {
        let mut entries = [0; 512];
        let devices = [layout::CONSOLE_MMIO, interrupts::IO_APIC, interrupts::LOCAL_APIC];
        let mut device = 0;
        while device < devices.len() {
            let start = devices[device].0 & !(LARGE_PAGE_SIZE - 1);
            let entry = start | NO_EXECUTE | LARGE_PAGE | CACHE_DISABLE | WRITABLE | PRESENT;
            entries[((start - layout::LOW_RAM_MAX_END.0) / LARGE_PAGE_SIZE) as usize] = entry;
            device += 1;
        }
        Directory(entries)
    };

    let pml4 = crate::boot_info().page_tables.start as *const AtomicU64;
    // SAFETY: The VMM put the PML4 there; page tables are RAM that is mapped at its own address.
    let first = unsafe { &*pml4 }.load(Ordering::Relaxed);
    if first & PRESENT == 0 {
        return None;
    }
    let table = (first & ADDRESS) as *const AtomicU64;
    // SAFETY: A present entry of the PML4 holds the address of a table of 512 entries, in RAM as above.
    let entry = unsafe { &*table.add(HOLE_INDEX) };
    // An entry that becomes present needs no TLB flush (Intel SDM vol. 3A, 4.10.4.3).
    entry.store(&raw const DIRECTORY as u64 | WRITABLE | PRESENT, Ordering::Relaxed);
    Some(())
}

/// Bits of a page-table entry (Intel SDM vol. 3A, table 4-18).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const CACHE_DISABLE: u64 = 1 << 4;
const LARGE_PAGE: u64 = 1 << 7;
/// EFER.NXE is set at start.
const NO_EXECUTE: u64 = 1 << 63;
const LARGE_PAGE_SIZE: u64 = 2 << 20;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// The entry of a page-directory-pointer table that covers the hole: each covers 1 GiB.
const HOLE_INDEX: usize = (layout::LOW_RAM_MAX_END.0 >> 30) as usize;
