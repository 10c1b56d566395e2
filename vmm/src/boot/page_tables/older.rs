//! The first page tables of 32-bit guests: all 4 GiB to themselves, with all rights, in the largest pages there are.
//!
//! ```text
//! 32-bit paging (Intel SDM vol. 3A, 4.3)            PAE (4.4)
//!
//! CR3 ─► PD: 1024 entries of 4 bytes                CR3 ─► PDPT: 4 entries ─► 4 PDs: 512 entries of 8 bytes each
//!        [i] = i · 4 MiB │ PS, R/W, P                      [g] = PD g │ P         [i] = g GiB + i · 2 MiB │ PS, R/W, P
//! ```
//!
//! Who wants other rights, or small pages, edits them: `guest-kernel/src/bin/modes/paged32.s` and `pae.s` do.

use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;
use x86_64::structures::paging::PageTableFlags as Entry;

use super::{ENTRIES, ENTRY_SIZE, Emit, emit_run};
use crate::config::PageSize;

/// Tables of 32-bit paging: the page directory.
pub(super) const PAGE_DIRECTORIES: u64 = 1;
/// Tables of PAE paging: one page for the four pointers, and four page directories.
pub(super) const PAE_TABLES: u64 = 5;

/// An entry that maps a large page.
const PAGE: u64 = Entry::PRESENT.union(Entry::WRITABLE).union(Entry::HUGE_PAGE).bits();

/// Builds the page directory of 32-bit paging at `base`.
pub(super) fn page_directory(base: Gpa, emit: &mut Emit<'_>) {
    let entry = |index: u64| (index * PageSize::Size4M.bytes()) | PAGE;
    // Two entries of 32 bits are one word.
    emit_run(emit, base, ENTRIES, |pair| entry(2 * pair) | entry(2 * pair + 1) << 32);
}

/// Builds the tables of PAE paging from `base` on: the pointers, then the page directories.
pub(super) fn pae(base: Gpa, emit: &mut Emit<'_>) {
    for gib in 0..4 {
        let directory = Gpa(base.0 + (1 + gib) * PAGE_SIZE);
        emit_run(emit, directory, ENTRIES, |index| {
            (gib * PageSize::Size1G.bytes() + index * PageSize::Size2M.bytes()) | PAGE
        });
        // The pointers have no bits for rights.
        emit(Gpa(base.0 + gib * ENTRY_SIZE), &[directory.0 | Entry::PRESENT.bits()]);
    }
}
