//! Memory slots: telling KVM which RAM of this process is the guest's.
//!
//! A slot maps guest-physical addresses to host-virtual ones (Linux Documentation/virt/kvm/api.rst, 4.35). With
//! two-dimensional paging (EPT, NPT) telling KVM of 64 GiB is as cheap as of 16 MiB, and all RAM is registered at once.
//! A KVM without it keeps a word for every page of every slot: 64 GiB take 128 MiB of host memory and 25 ms, whether
//! the guest touches them or not. There RAM is registered in parts, when they are first touched:
//!
//! 1. What holds anything at start (image, tables, stack, boot info) is registered before the first entry, with what lies
//!    around it.
//! 2. A load or store elsewhere exits as MMIO, because KVM knows of no RAM there. The VMM does the access itself, in the same
//!    memory, registers what is missing of the chunk around it, and the guest goes on.
//! 3. What KVM cannot finish as MMIO exits as a failed emulation (a fetch), or as a shutdown (an exception whose frame goes to a
//!    stack that nobody has touched). The VMM registers everything and lets the guest try once more.
//!
//! Page tables need no care: a table is written before it is used, and the writing registers its chunk. A machine that is made
//! from another's snapshot has all chunks registered that the other had. What is left is
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
use crate::touched::Extent;

/// The slots of a machine: what KVM has been told of its RAM.
#[derive(Debug)]
pub struct MemorySlots {
    ram: Vec<MemorySlot>,
    /// Whether RAM is registered when it is touched, or all at once.
    in_chunks: bool,
    /// How many slots KVM has.
    limit: u64,
    /// What KVM knows, lowest first. The slot told n-th has the number n.
    told: Vec<MemorySlot>,
    told_at: Option<Origin>,
}

/// RAM that is touched is registered with its neighbours of this size: an exit and some 20 µs each.
const CHUNK: u64 = 32 << 20;
/// RAM that holds something at the start is registered in multiples of this, which are all that many guests touch.
const START: u64 = 16 << 20;

impl MemorySlots {
    /// Slots for the `memory` of so many vCPUs, none of them registered yet. Several vCPUs may meet at an address that none has
    /// touched, so they have all RAM registered at once.
    #[must_use]
    pub fn new(kvm: &Kvm, memory: &GuestMemory, vcpus: VcpuCount) -> Self {
        let (ram, limit) = (memory.slots().collect(), kvm.get_nr_memslots() as u64);
        let size = memory.size().bytes();
        let in_chunks =
            size > CHUNK && vcpus == VcpuCount::ONE && size / CHUNK < limit && !registering_is_cheap();
        Self { ram, in_chunks, limit, told: Vec::new(), told_at: None }
    }

    /// Registers what must be there before the first instruction: all of it, or what holds something.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn register_start(&mut self, vm: &VmFd, map: &GuestMap) -> Result<()> {
        if self.in_chunks {
            let parts = start_parts(map);
            // Each may leave something of its chunk before it and behind it, which takes a slot, too.
            if self.ram_size() / CHUNK + 3 * (parts.len() as u64) < self.limit {
                return parts.into_iter().try_for_each(|part| self.register_gaps(vm, part).map(drop));
            }
        }
        self.register_all(vm).map(drop)
    }

    /// Registers the chunks that another machine of this size had registered ([`chunks`](Self::chunks)).
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub(crate) fn register_like(&mut self, vm: &VmFd, chunks: &[u64]) -> Result<()> {
        if self.in_chunks {
            return chunks.iter().try_for_each(|chunk| self.register(vm, Gpa(*chunk)));
        }
        self.register_all(vm).map(drop)
    }

    /// An address in each chunk that KVM knows something of, lowest first.
    pub(crate) fn chunks(&self) -> Vec<u64> {
        let chunks = self.told.iter().map(extent).flat_map(|Extent { start, end }| {
            let others = (start.0 / CHUNK + 1..).map(|chunk| chunk * CHUNK);
            std::iter::once(start.0).chain(others.take_while(move |chunk| *chunk < end.0))
        });
        chunks.collect()
    }

    /// Registers what KVM does not know of the chunk around `gpa`, if there is RAM that it does not know.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn register(&mut self, vm: &VmFd, gpa: Gpa) -> Result<()> {
        let start = Gpa(gpa.0 / CHUNK * CHUNK);
        let chunk = Extent { start, end: Gpa(start.0.saturating_add(CHUNK)) };
        self.gap_at(gpa, chunk).map_or(Ok(()), |gap| self.tell(vm, gap))
    }

    /// Registers all RAM. False when KVM knows all of it already.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn register_all(&mut self, vm: &VmFd) -> Result<bool> {
        self.register_gaps(vm, EVERYWHERE)
    }

    /// Tells KVM that code in system-management mode sees the same RAM: it has slots of its own, whose numbers have bit 16
    /// set (Linux Documentation/virt/kvm/api.rst, KVM_CAP_MULTI_ADDRESS_SPACE).
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn register_for_system_management(&self, vm: &VmFd) -> Result<()> {
        const SYSTEM_MANAGEMENT: u32 = 1 << 16;
        for (slot, number) in self.told.iter().zip(SYSTEM_MANAGEMENT..) {
            tell(vm, number, *slot)?;
        }
        Ok(())
    }

    /// The parts of RAM that KVM knows now, lowest first.
    pub fn told(&self) -> impl Iterator<Item = MemorySlot> + '_ {
        self.told.iter().copied()
    }

    /// The line that told KVM of RAM.
    #[must_use]
    pub fn told_at(&self) -> Option<Origin> {
        self.told_at
    }

    fn ram_size(&self) -> u64 {
        self.ram.iter().map(|ram| ram.size).sum()
    }

    /// Registers what KVM does not know of `part`. False when it knows all RAM there.
    fn register_gaps(&mut self, vm: &VmFd, part: Extent) -> Result<bool> {
        let mut any = false;
        for index in 0..self.ram.len() {
            let Some(ram) = self.ram.get(index).map(extent) else { break };
            let (mut gpa, end) = (ram.start.max(part.start), ram.end.min(part.end));
            while gpa < end {
                if let Some(gap) = self.gap_at(gpa, part) {
                    self.tell(vm, gap)?;
                    any = true;
                }
                gpa = self.told_around(gpa).map_or(end, |known| known.end);
            }
        }
        Ok(any)
    }

    /// The RAM around `gpa` that KVM does not know and that lies in `limits`. `None` when it knows it, or there is none.
    fn gap_at(&self, gpa: Gpa, limits: Extent) -> Option<MemorySlot> {
        let ram = self.ram.iter().find(|ram| extent(ram).contains(gpa))?;
        if self.told_around(gpa).is_some() {
            return None;
        }
        let (below, above) = self.told.split_at(self.told_up_to(gpa));
        let floor = below.last().map_or(Gpa(0), |slot| extent(slot).end);
        let ceiling = above.first().map_or(EVERYWHERE.end, |slot| slot.gpa);
        let start = ram.gpa.max(limits.start).max(floor);
        let end = extent(ram).end.min(limits.end).min(ceiling);
        Some(MemorySlot { gpa: start, hva: ram.hva + (start.0 - ram.gpa.0), size: end.0 - start.0 })
    }

    /// The slot that `gpa` lies in.
    fn told_around(&self, gpa: Gpa) -> Option<Extent> {
        let last = self.told_up_to(gpa).checked_sub(1)?;
        self.told.get(last).map(extent).filter(|slot| slot.contains(gpa))
    }

    /// How many slots begin at or below `gpa`.
    fn told_up_to(&self, gpa: Gpa) -> usize {
        self.told.partition_point(|slot| slot.gpa <= gpa)
    }

    fn tell(&mut self, vm: &VmFd, slot: MemorySlot) -> Result<()> {
        self.told_at = Some(tell(vm, self.told.len() as u32, slot)?);
        self.told.insert(self.told_up_to(slot.gpa), slot);
        Ok(())
    }
}

/// All addresses.
const EVERYWHERE: Extent = Extent { start: Gpa(0), end: Gpa(u64::MAX) };

fn extent(slot: &MemorySlot) -> Extent {
    Extent { start: slot.gpa, end: Gpa(slot.gpa.0 + slot.size) }
}

/// The parts of RAM that hold something at the start.
fn start_parts(map: &GuestMap) -> Vec<Extent> {
    let mut parts: Vec<Extent> = Vec::new();
    for region in map.regions().iter().filter(|region| region.kind != RegionKind::Free) {
        let start = Gpa(region.start.0 / START * START);
        let end = Gpa(region.end.0.next_multiple_of(START));
        match parts.last_mut().filter(|last| last.reaches(start, 0)) {
            Some(last) => last.end = end,
            None => parts.push(Extent { start, end }),
        }
    }
    parts
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn slots(told: &[(u64, u64)]) -> MemorySlots {
        let slot = |start: u64, end: u64| MemorySlot { gpa: Gpa(start), hva: start + MIB, size: end - start };
        let told = told.iter().map(|(start, end)| slot(*start, *end)).collect();
        let ram = vec![slot(0, 100 * MIB), slot(4096 * MIB, 8192 * MIB)];
        MemorySlots { ram, in_chunks: true, limit: 509, told, told_at: None }
    }

    #[test]
    fn a_gap_ends_where_ram_does_or_what_is_known_or_what_is_asked_for() {
        let slots = slots(&[(0, 4 * MIB), (64 * MIB, 96 * MIB)]);
        let gap = |mib: u64, start: u64, end: u64| {
            let limits = Extent { start: Gpa(start * MIB), end: Gpa(end * MIB) };
            let gap = slots.gap_at(Gpa(mib * MIB), limits)?;
            assert_eq!(gap.hva, gap.gpa.0 + MIB);
            Some((gap.gpa.0 / MIB, (gap.gpa.0 + gap.size) / MIB))
        };
        assert_eq!(gap(5, 0, 32), Some((4, 32)));
        assert_eq!(gap(40, 32, 64), Some((32, 64)));
        assert_eq!(gap(40, 0, 9999), Some((4, 64)));
        assert_eq!(gap(97, 96, 128), Some((96, 100)));
        assert_eq!(gap(5000, 0, 9999), Some((4096, 8192)));
        for known_or_no_ram in [0, 3, 64, 95, 100, 4095, 8192] {
            assert_eq!(gap(known_or_no_ram, 0, 9999), None);
        }
    }

    #[test]
    fn who_has_the_same_chunks_knows_all_that_is_known() {
        let slots = slots(&[(0, 4 * MIB), (40 * MIB, 100 * MIB), (4096 * MIB, 4160 * MIB)]);
        let chunks: Vec<_> = slots.chunks().into_iter().map(|chunk| chunk / MIB).collect();
        assert_eq!(chunks, [0, 40, 64, 96, 4096, 4128]);
    }
}
