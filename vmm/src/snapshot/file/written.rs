//! What a file says beside the kernel and RAM, as JSON; checked before it becomes anything.

use std::sync::Arc;

use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use serde::{Deserialize, Serialize};
use shared_abi::{Gpa, Gva, layout};

use super::FileResult;
use super::cpu::Cpu;
use super::error::FileError;
use crate::boot::contract::Contract;
use crate::boot::cpu_mode::{RegisterOrigins, StartMode};
use crate::boot::guest_map::GuestMap;
use crate::boot::kernel::{Flat, KernelImage, Start};
use crate::boot::{BootOrigins, boot_info};
use crate::config::{Blueprint, CpuidUse, KernelSource, MemorySize, PageSize};
use crate::console::MAX_WAITING;
use crate::cpus::VcpuCount;
use crate::origin::Origin;
use crate::snapshot::state::State;
use crate::vm::{Lineage, Origins};

/// What a file says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written<S = State> {
    /// The CPU it was taken on.
    pub(super) cpu: Cpu,
    /// Bytes of RAM.
    memory: u64,
    /// Bytes of the pages that map free RAM.
    page_size: u64,
    /// Which mode the kernel started in, counted from real mode.
    mode: u8,
    /// Where a flat image went, and where it started.
    flat: Option<[u64; 2]>,
    /// Whether the guest carries the contract.
    has_contract: bool,
    /// What it was started with.
    arguments: Vec<String>,
    /// Bits of a physical address.
    address_bits: u32,
    /// What CPUs and devices hold.
    state: S,
}

/// Modes and page sizes by the numbers that stand for them in a file.
const MODES: [StartMode; 5] =
    [StartMode::Real, StartMode::Protected, StartMode::Paged32, StartMode::Pae, StartMode::Long];
const PAGE_SIZES: [PageSize; 4] = [PageSize::Size4K, PageSize::Size2M, PageSize::Size4M, PageSize::Size1G];

/// More registers than any KVM lists.
const MAX_MSRS: usize = 1024;
/// More parts of RAM than are told to any KVM one by one.
const MAX_TOLD: usize = 1 << 14;

impl<'a> Written<&'a State> {
    /// What the file of a snapshot says.
    pub(super) fn of(state: &'a State, lineage: &Lineage, memory: MemorySize, cpu: Cpu) -> Self {
        let Blueprint { start: Start { mode, flat }, page_size, contract, .. } = lineage.blueprint;
        let mode = MODES.iter().zip(0..).find(|(own, _)| **own == mode).map_or(0, |(_, number)| number);
        Self {
            cpu,
            memory: memory.bytes(),
            page_size: page_size.bytes(),
            mode,
            flat: flat.map(|Flat { load_at, entry }| [load_at.0, entry.0]),
            has_contract: contract == Contract::Required,
            arguments: lineage.blueprint.arguments.clone(),
            address_bits: lineage.address_bits,
            state,
        }
    }

    pub(super) fn to_json(&self) -> FileResult<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| FileError::Malformed(error.to_string()))
    }
}

impl Written {
    pub(super) fn from_json(bytes: &[u8]) -> FileResult<Self> {
        serde_json::from_slice(bytes).map_err(|error| FileError::Malformed(error.to_string()))
    }

    /// RAM of the machine.
    pub(super) fn memory(&self) -> FileResult<MemorySize> {
        MemorySize::new(self.memory).map_err(|error| FileError::Malformed(error.to_string()))
    }

    /// The state and the start, if they are those of a machine.
    pub(super) fn into_parts(self, image: Arc<[u8]>, memory: MemorySize) -> FileResult<(State, Lineage)> {
        self.check()?;
        let kernel = |error| FileError::Kernel(Box::new(error));
        let mode = MODES.get(usize::from(self.mode)).copied();
        let mode = mode.ok_or_else(|| FileError::Malformed(format!("there is no mode {}", self.mode)))?;
        let page_size = PAGE_SIZES.into_iter().find(|size| size.bytes() == self.page_size);
        let page_size = page_size
            .ok_or_else(|| FileError::Malformed(format!("there are no pages of {} bytes", self.page_size)))?;
        let flat = self.flat.map(|[load_at, entry]| Flat { load_at: Gpa(load_at), entry: Gva(entry) });
        let start = Start { mode, flat };
        let mut image = KernelImage::open_as(&KernelSource::Bytes(image), start).map_err(kernel)?;
        if self.has_contract {
            image.check_contract().map_err(kernel)?;
        }
        let contract = if self.has_contract { Contract::Required } else { Contract::None };
        let map = GuestMap::plan_for(mode, memory, image.segments(), page_size);
        let map = map.map_err(|error| kernel(error.for_image(&image)))?;
        let Self { arguments, address_bits, state, .. } = self;
        let cpuid = CpuidUse::default();
        let blueprint = Blueprint { start, memory, page_size, arguments, contract, cpuid };
        Ok((state, Lineage { map, image, origins: origins(), address_bits, blueprint }))
    }

    fn check(&self) -> FileResult<()> {
        let state = &self.state;
        let malformed = |what: &str| Err(FileError::Malformed(what.to_owned()));
        let count = state.vcpus.len();
        if VcpuCount::new(count as u64).is_err() {
            return Err(FileError::Malformed(format!("no machine has {count} vCPUs")));
        }
        if state.stopped.index() >= count || state.asked_by.iter().any(|id| id.index() >= count) {
            return malformed("it names vCPUs that it has not");
        }
        let (has_apics, has_lives) = (state.ioapic.is_some(), count > 1);
        if state.vcpus.iter().any(|own| own.apic.is_some() != has_apics || own.life.is_some() != has_lives) {
            return malformed("not all of its vCPUs are of one kind");
        }
        if state.vcpus.iter().any(|own| own.msrs.len() > MAX_MSRS || own.cpuid.len() > KVM_MAX_CPUID_ENTRIES)
        {
            return malformed("a vCPU has more registers than any has");
        }
        if state.console.len() > MAX_WAITING || !state.panic_text.is_valid() || state.told.len() > MAX_TOLD {
            return malformed("a device holds more than it can hold");
        }
        if state.arguments.len() as u64 > layout::ARGUMENTS_MAX_SIZE {
            return malformed("the guest's arguments are longer than there is room");
        }
        boot_info::encode_arguments(&self.arguments)
            .map_err(|error| FileError::Malformed(error.to_string()))?;
        if !(32..=52).contains(&self.address_bits) {
            return malformed("no CPU has so many bits of a physical address");
        }
        Ok(())
    }
}

/// Nothing was built here; what there is came from the file.
fn origins() -> Origins {
    let here = Origin::here();
    let boot = BootOrigins { planned: here, loaded: here, page_tables: here, boot_info: here, cpu: here };
    Origins { boot, registers: RegisterOrigins { special: here, general: here } }
}
