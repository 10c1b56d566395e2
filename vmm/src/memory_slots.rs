//! Memory slots: telling KVM which RAM of this process is the guest's.
//!
//! A slot maps guest-physical addresses to host-virtual ones (Linux Documentation/virt/kvm/api.rst, 4.35). With
//! two-dimensional paging (EPT, NPT) telling KVM of 64 GiB is as cheap as of 16 MiB, and all RAM is registered at once.
//! A KVM without it keeps a word for every page of every slot: 64 GiB take 128 MiB of host memory and 25 ms, whether
//! the guest touches them or not. There RAM is registered in chunks when it is first touched:
//!
//! 1. Chunks that hold anything at start (image, tables, stack, boot info) are registered before the first entry.
//! 2. A load or store in another chunk exits as MMIO, because KVM knows of no RAM there. The VMM does the access itself,
//!    in the same memory, registers the chunk, and the guest goes on; it never exits for this chunk again.
//! 3. An instruction that KVM cannot finish as MMIO (a fetch, a large vector) exits as a failed emulation. The VMM
//!    registers everything and lets the guest try once more.
//!
//! Page tables need no care: a table is written before it is used, and the writing registers its chunk. What is left is
//! atomicity: the first locked access to a chunk is a load and a store. One CPU does not notice; a machine of several has
//! all its RAM registered at once.

use std::fs;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VmFd};
use shared_abi::Gpa;

use crate::boot::guest_map::GuestMap;
use crate::boot::region::RegionKind;
use crate::cpus::VcpuCount;
use crate::error::{Error, Result};
use crate::memory::{GuestMemory, MemorySlot};
use crate::origin::Origin;

/// The slots of a machine: what KVM has been told of its RAM.
#[derive(Debug)]
pub struct MemorySlots {
    regions: Vec<MemorySlot>,
    chunk_size: u64,
    /// For each region, which of its chunks KVM knows.
    registered: Vec<Vec<bool>>,
    next_slot: u32,
    told_at: Option<Origin>,
}

/// RAM is registered in chunks of this size where it is not registered at once: 32 MiB, an exit and some 20 µs each.
const CHUNK_SIZE: u64 = 32 << 20;

impl MemorySlots {
    /// Slots for `memory`, none of them registered yet.
    #[must_use]
    pub fn new(kvm: &Kvm, memory: &GuestMemory) -> Self {
        let regions: Vec<_> = memory.slots().collect();
        let in_chunks = memory.size().bytes() > CHUNK_SIZE
            && memory.size().bytes() / CHUNK_SIZE < kvm.get_nr_memslots() as u64
            && !registering_is_cheap();
        let chunk_size = if in_chunks { CHUNK_SIZE } else { u64::MAX };
        let registered =
            regions.iter().map(|region| vec![false; region.size.div_ceil(chunk_size) as usize]).collect();
        Self { regions, chunk_size, registered, next_slot: 0, told_at: None }
    }

    /// Registers what must be there before the first instruction: all of it, or the chunks that hold something. Several
    /// vCPUs may meet at an address that none has touched, so they have all of it.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn register_start(&mut self, vm: &VmFd, map: &GuestMap, vcpus: VcpuCount) -> Result<()> {
        if self.chunk_size == u64::MAX || vcpus > VcpuCount::ONE {
            return self.register_all(vm).map(drop);
        }
        for region in map.regions().iter().filter(|region| region.kind != RegionKind::Free) {
            let mut gpa = region.start;
            while gpa < region.end {
                self.register(vm, gpa)?;
                gpa = Gpa((gpa.0 / self.chunk_size + 1) * self.chunk_size);
            }
        }
        Ok(())
    }

    /// Registers the parts that another machine of this size had registered.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub(crate) fn register_like(&mut self, vm: &VmFd, starts: &[u64]) -> Result<()> {
        if self.chunk_size == u64::MAX {
            return self.register_all(vm).map(drop);
        }
        starts.iter().try_for_each(|start| self.register(vm, Gpa(*start)).map(drop))
    }

    /// Registers the chunk that holds `gpa`. False when there is no RAM, or KVM knows it already.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn register(&mut self, vm: &VmFd, gpa: Gpa) -> Result<bool> {
        let Some((region, chunk)) = self.find(gpa) else { return Ok(false) };
        self.register_chunk(vm, region, chunk)
    }

    /// Registers all RAM. False when KVM knows all of it already.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn register_all(&mut self, vm: &VmFd) -> Result<bool> {
        let mut any = false;
        for region in 0..self.regions.len() {
            for chunk in 0..self.registered.get(region).map_or(0, Vec::len) {
                any |= self.register_chunk(vm, region, chunk)?;
            }
        }
        Ok(any)
    }

    /// Tells KVM that code in system-management mode sees the same RAM: it has slots of its own, whose numbers have bit 16
    /// set (Linux Documentation/virt/kvm/api.rst, KVM_CAP_MULTI_ADDRESS_SPACE).
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn register_for_system_management(&self, vm: &VmFd) -> Result<()> {
        const SYSTEM_MANAGEMENT: u32 = 1 << 16;
        for (slot, number) in self.told().zip(SYSTEM_MANAGEMENT..) {
            tell(vm, number, slot)?;
        }
        Ok(())
    }

    /// The parts of RAM that KVM knows now, lowest first.
    pub fn told(&self) -> impl Iterator<Item = MemorySlot> + '_ {
        self.regions.iter().zip(&self.registered).flat_map(|(region, chunks)| {
            let known = chunks.iter().zip(0u64..).filter(|(known, _)| **known);
            known.map(|(_, chunk)| {
                let offset = chunk * self.chunk_size;
                let size = self.chunk_size.min(region.size - offset);
                MemorySlot { gpa: Gpa(region.gpa.0 + offset), hva: region.hva + offset, size }
            })
        })
    }

    /// The line that told KVM of RAM.
    #[must_use]
    pub fn told_at(&self) -> Option<Origin> {
        self.told_at
    }

    fn find(&self, gpa: Gpa) -> Option<(usize, usize)> {
        self.regions.iter().enumerate().find_map(|(index, region)| {
            let offset = gpa.0.checked_sub(region.gpa.0).filter(|offset| *offset < region.size)?;
            Some((index, (offset / self.chunk_size) as usize))
        })
    }

    fn register_chunk(&mut self, vm: &VmFd, region: usize, chunk: usize) -> Result<bool> {
        let known = self.registered.get_mut(region).and_then(|chunks| chunks.get_mut(chunk));
        let (Some(known), Some(region)) = (known, self.regions.get(region)) else { return Ok(false) };
        if *known {
            return Ok(false);
        }
        let offset = chunk as u64 * self.chunk_size;
        let size = self.chunk_size.min(region.size - offset);
        let slot = MemorySlot { gpa: Gpa(region.gpa.0 + offset), hva: region.hva + offset, size };
        self.told_at = Some(tell(vm, self.next_slot, slot)?);
        *known = true;
        self.next_slot += 1;
        Ok(true)
    }
}

/// Tells KVM of a slot. Gives the line that did.
fn tell(vm: &VmFd, number: u32, slot: MemorySlot) -> Result<Origin> {
    let region = kvm_userspace_memory_region {
        slot: number,
        flags: 0,
        guest_phys_addr: slot.gpa.0,
        memory_size: slot.size,
        userspace_addr: slot.hva,
    };
    // SAFETY: The range is mapped, and `Machine` drops the VM before the memory: the mapping outlives the slot. What
    // the guest writes there is only ever read as bytes.
    let (told, told_at) = Origin::of(unsafe { vm.set_user_memory_region(region) });
    told.map_err(Error::kvm("KVM_SET_USER_MEMORY_REGION"))?;
    Ok(told_at)
}

/// Whether this host's KVM has two-dimensional paging, so that the size of a slot does not matter. A host that does not
/// say (no sysfs) is taken for one: registering at once is always right, and at worst slow.
fn registering_is_cheap() -> bool {
    // A parameter of type bool says `Y`; `npt` was an int in older kernels and says `1`.
    let says_yes =
        |parameter: &str| fs::read(parameter).is_ok_and(|value| matches!(value.first(), Some(b'Y' | b'1')));
    says_yes("/sys/module/kvm_intel/parameters/ept")
        || says_yes("/sys/module/kvm_amd/parameters/npt")
        || fs::metadata("/sys/module/kvm").is_err()
}
