//! Makes the addresses of devices usable: maps the start of the device hole to itself.
//!
//! The first page tables map RAM only. Devices lie in the hole, from 3 GiB to 4 GiB (`shared-abi/src/layout.rs`), and
//! each access must reach them: so the pages there are not cached.

use shared_abi::{Gva, layout};

use crate::memory::paging::{AddressSpace, MapError, PageSize, Rights};

/// Maps the first 2 MiB of the device hole; doing so again changes nothing.
///
/// # Errors
/// [`MapError`], when no frame is free for a page table.
pub fn map_hole() -> Result<(), MapError> {
    let hole = layout::LOW_RAM_MAX_END;
    let rights = Rights::READ_WRITE.uncached();
    match AddressSpace::kernel().map(Gva(hole.0), hole, PageSize::Size2M, rights) {
        Err(MapError::AlreadyMapped { .. }) => Ok(()),
        result => result,
    }
}
