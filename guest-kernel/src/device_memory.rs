//! Makes the addresses of devices usable: maps the start of the device hole to itself, and the interrupt controllers.
//!
//! The first page tables map RAM only. Devices lie in the hole, from 3 GiB to 4 GiB (`shared-abi/src/layout.rs`), and
//! each access must reach them: so the pages there are not cached.

use shared_abi::{Gva, interrupts, layout};

use crate::memory::paging::{AddressSpace, MapError, PageSize, Rights};

/// Maps the first 2 MiB of the device hole and those with interrupt controllers; doing so again changes nothing.
///
/// # Errors
/// [`MapError`], when no frame is free for a page table.
pub fn map_hole() -> Result<(), MapError> {
    let rights = Rights::READ_WRITE.uncached();
    for device in [layout::CONSOLE_MMIO, interrupts::IO_APIC, interrupts::LOCAL_APIC] {
        match AddressSpace::kernel().map(Gva(device.0), device, PageSize::Size2M, rights) {
            Ok(()) | Err(MapError::AlreadyMapped { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
