//! Writes the `BootInfo` and the arguments. Guest side: `guest-kernel/src/boot.rs`.

use std::mem::offset_of;

use shared_abi::boot_info::{BootInfo, RamRegion};
use shared_abi::define::Shared;
use shared_abi::{Gpa, layout};

use crate::boot::cpu_mode::StartMode;
use crate::boot::guest_map::GuestMap;
use crate::cpus::VcpuCount;
use crate::error::{Error, Result};
use crate::memory::GuestMemory;
use crate::origin::Origin;

/// The arguments as they lie in guest memory: each with a NUL behind it.
///
/// # Errors
/// [`Error::ArgumentWithNul`], [`Error::ArgumentsTooLong`].
pub fn encode_arguments(arguments: &[String]) -> Result<Vec<u8>> {
    let size = arguments.iter().map(|argument| argument.len() + 1).sum();
    if size as u64 > layout::ARGUMENTS_MAX_SIZE {
        return Err(Error::ArgumentsTooLong { size });
    }
    let mut bytes = Vec::with_capacity(size);
    for (index, argument) in arguments.iter().enumerate() {
        if argument.contains('\0') {
            return Err(Error::ArgumentWithNul { index, argument: argument.clone() });
        }
        bytes.extend_from_slice(argument.as_bytes());
        bytes.push(0);
    }
    Ok(bytes)
}

/// What a machine may offer its guest.
#[derive(Clone, Copy, Debug)]
pub struct Offers {
    /// So many vCPUs.
    pub vcpus: VcpuCount,
    /// The host answers hypercalls.
    pub hypercalls: bool,
    /// There are interrupt controllers.
    pub interrupts: bool,
}

/// Writes both to their places, which only long mode has. Gives the line that had them written.
#[track_caller]
pub fn write(map: &GuestMap, arguments: &[u8], offers: Offers, memory: &GuestMemory) -> Origin {
    let Some(page_tables) = map.page_tables().filter(|_| map.mode() == StartMode::Long) else {
        return Origin::here();
    };
    let arguments_end = Gpa(layout::ARGUMENTS.0 + arguments.len() as u64);
    let info = BootInfo {
        magic: BootInfo::MAGIC,
        version: BootInfo::VERSION,
        ram: map.ram(),
        image: map.image(),
        page_tables: RamRegion::new(page_tables.start, page_tables.end),
        arguments: RamRegion::new(layout::ARGUMENTS, arguments_end),
        vcpu_count: offers.vcpus.get().into(),
        hypercalls: offers.hypercalls.into(),
        interrupts: offers.interrupts.into(),
        // A vCPU must exist to be asked.
        tsc_khz: 0,
    };
    let mut bytes = Vec::with_capacity(size_of::<BootInfo>());
    info.write(&mut |word| bytes.extend(word.to_le_bytes()));
    memory.write(layout::BOOT_INFO, &bytes).expect("boot info lies in the first 2 MiB of RAM");
    memory.write(layout::ARGUMENTS, arguments).expect("arguments lie in the first 2 MiB of RAM");
    Origin::here()
}

/// Adds how often the time-stamp counter counts, which only a vCPU can tell.
pub fn write_tsc_khz(khz: u32, memory: &GuestMemory) {
    let gpa = Gpa(layout::BOOT_INFO.0 + offset_of!(BootInfo, tsc_khz) as u64);
    memory.write(gpa, &u64::from(khz).to_le_bytes()).expect("boot info lies in the first 2 MiB of RAM");
}
