//! From an image to a CPU that can run it.
//!
//! The steps, in order; each has its file:
//!
//! 1. [`elf_headers`]: read and check the image's headers. Nothing of the machine exists yet, so a bad image costs nothing.
//! 2. [`contract`]: was the guest built against the contract that we know?
//! 3. [`guest_map`]: decide what lies where in guest-physical memory, and with which rights ([`region`]).
//! 4. [`kernel`]: copy the image's segments to their places.
//! 5. [`page_tables`]: map everything to itself, with these rights.
//! 6. [`boot_info`]: write what the guest wants to know.
//! 7. [`cpu_mode`]: give the vCPU the registers of a CPU that is in the mode wanted and about to fetch at the entry.

pub mod boot_info;
pub mod contract;
pub mod cpu_mode;
pub mod elf_headers;
mod features_used;
pub mod guest_map;
pub mod image_error;
pub mod kernel;
pub mod page_tables;
pub mod region;

use shared_abi::needs;

use crate::config::{CpuidUse, PageSize, VmConfig};
use crate::cpuid::Cpuid;
use crate::cpus::VcpuCount;
use crate::error::Result;
use crate::interrupts::Interrupts;
use crate::memory::GuestMemory;
use crate::origin::Origin;
use shared_abi::Gpa;

use boot_info::Offers;
use contract::Contract;
use cpu_mode::{CpuMode, StartMode};
use guest_map::GuestMap;
use image_error::ImageError;
use kernel::KernelImage;

/// What a machine's memory holds when its first vCPU is about to start.
#[derive(Debug)]
pub struct Boot {
    /// What lies where.
    pub map: GuestMap,
    /// The registers of the first vCPU.
    pub cpu: CpuMode,
    /// Whether the machine must have interrupt controllers.
    pub interrupts: bool,
    /// What its vCPUs must show of what they have.
    pub cpuid: CpuidNeed,
    /// The guest's arguments as they lie in memory.
    pub arguments: Vec<u8>,
    /// The lines that did it.
    pub origins: BootOrigins,
}

/// What CPUID must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuidNeed {
    /// Nothing.
    Nothing,
    /// How many bits an address has: KVM refuses page tables that lead beyond.
    Addresses,
    /// All that KVM can give.
    Everything,
}

/// The lines that filled guest memory.
#[derive(Clone, Copy, Debug)]
pub struct BootOrigins {
    /// Decides what lies where.
    pub planned: Origin,
    /// Copies the image's segments.
    pub loaded: Origin,
    /// Writes the page tables.
    pub page_tables: Origin,
    /// Writes `BootInfo` and the arguments.
    pub boot_info: Origin,
    /// Decides RIP and CR3.
    pub cpu: Origin,
}

/// Bytes of page tables from which it is faster to have their pages given at once. Of 64 GiB in pages of 4 KiB they are 128 MiB;
/// in pages of 2 MiB most are constants, which take no page.
const MANY_TABLES: u64 = 64 << 10;

/// Fills `memory` with everything the guest described by `config` needs at its first instruction.
///
/// # Errors
/// What does not fit, and what is wrong with the image or the arguments.
pub fn prepare(config: &VmConfig, image: &mut KernelImage, memory: &GuestMemory) -> Result<Boot> {
    let mode = image.mode();
    if config.contract == Contract::Required {
        if mode != StartMode::Long {
            return Err(image.error(ImageError::NoContractIn(mode)));
        }
        image.check_contract()?;
    }
    let interrupts = match config.interrupts {
        Interrupts::AsNeeded => {
            config.contract == Contract::Required && image.needs()? & needs::INTERRUPTS != 0
        }
        Interrupts::On => true,
        Interrupts::Off => false,
    };
    let arguments = boot_info::encode_arguments(&config.arguments)?;
    let (map, planned) =
        Origin::of(GuestMap::plan_for(mode, memory.size(), image.segments(), config.page_size));
    let map = map.map_err(|error| error.for_image(image))?;

    let ((), loaded) = Origin::of(image.load(memory)?);
    let cpuid = cpuid_need(config, image, interrupts, memory);
    if let Some(tables) = map.page_tables().filter(|tables| tables.size() >= MANY_TABLES)
        && config.page_size == PageSize::Size4K
    {
        memory.populate(tables.start, tables.size());
    }
    let mut write_entries = |gpa, entries: &[u64]| {
        let bytes = object::pod::bytes_of_slice(entries);
        memory.write_or_map(gpa, bytes).expect("the map places page tables in RAM");
    };
    let page_tables = page_tables::write(&map, &mut write_entries);
    let hypercalls = config.contract == Contract::Required;
    let offers = Offers { vcpus: config.vcpus, hypercalls, interrupts };
    let boot_info = boot_info::write(&map, &arguments, offers, memory);

    let page_tables_gpa = map.page_tables().map_or(Gpa(0), |tables| tables.start);
    let (cpu, decided) = Origin::of(CpuMode::new(mode, image.entry(), page_tables_gpa));
    let origins = BootOrigins { planned, loaded, page_tables, boot_info, cpu: decided };
    Ok(Boot { map, cpu, interrupts, cpuid, arguments, origins })
}

/// What the guest can tell, or do less, when CPUID does not show it. A machine that is out of the ordinary needs everything:
/// so the few that do not are those that were thought of.
fn cpuid_need(config: &VmConfig, image: &KernelImage, interrupts: bool, memory: &GuestMemory) -> CpuidNeed {
    /// What a CPU addresses that does not say how much it does. Intel SDM vol. 3A, 4.1.4.
    const ADDRESSES_END: u64 = 1 << Cpuid::ADDRESS_BITS_UNSAID;
    let is_ordinary = config.contract == Contract::Required
        && config.cpuid == CpuidUse::AsNeeded
        && config.vcpus == VcpuCount::ONE
        && config.page_size != PageSize::Size1G
        // Programs may come from there.
        && config.directory.is_none()
        && !interrupts;
    if !is_ordinary || features_used::in_image(image.segments(), memory) {
        return CpuidNeed::Everything;
    }
    let is_small = memory.slots().all(|slot| slot.gpa.0 + slot.size <= ADDRESSES_END);
    if is_small { CpuidNeed::Nothing } else { CpuidNeed::Addresses }
}
