//! CPUID: what a guest's CPUs say of themselves.
//!
//! KVM tells what it can give (KVM_GET_SUPPORTED_CPUID), and each vCPU is told what it shows (KVM_SET_CPUID2). All show the
//! same but for who they are: some leaves hold the number of the CPU that executes the instruction, and some how many
//! there are. What KVM has there is of the host's CPU that it happened to ask, so those leaves are written anew:
//!
//! ```text
//! leaf 1           EBX 31:24 initial APIC id, EBX 23:16 logical CPUs, EDX 28 whether that is valid
//! leaf 4, 8000001D EAX 25:14 CPUs that share this cache, less 1; leaf 4, EAX 31:26 cores, less 1
//! leaf B, 1F       subleaf 0 threads of a core: 1; subleaf 1 CPUs of the package; EDX x2APIC id
//! leaf 80000008    ECX 7:0 CPUs of the package, less 1; 15:12 bits of an APIC id
//! leaf 8000001E    EAX extended APIC id, EBX 7:0 core, 15:8 threads of a core, less 1
//! ```
//!
//! Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E. The machine is one package of cores with a thread each, and a
//! vCPU's APIC id is its number.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::Kvm;
use shared_abi::boot_info::ram_regions;

use crate::config::{MemorySize, PageSize};
use crate::cpus::{VcpuCount, VcpuId};
use crate::error::{Error, Result};

/// The CPU as the guest will see it: all that the host's CPU has and KVM can give.
#[derive(Clone, Debug)]
pub(crate) struct Cpuid {
    leaves: Vec<kvm_cpuid_entry2>,
    count: VcpuCount,
}

impl Cpuid {
    /// The bits of a physical address where CPUID says nothing: 36 (Intel SDM vol. 3A, 4.1.4; KVM takes it so, too).
    pub(crate) const ADDRESS_BITS_UNSAID: u32 = 36;

    /// A CPU that says nothing of itself.
    pub(crate) fn silent() -> Self {
        Self { leaves: Vec::new(), count: VcpuCount::ONE }
    }

    /// Whether it says nothing of itself.
    pub(crate) fn is_silent(&self) -> bool {
        self.leaves.is_empty()
    }

    /// A CPU that says nothing but how many bits an address has, which are the host's. To ask KVM for the rest takes longer.
    ///
    /// # Errors
    /// [`Error::TooFewAddressBits`].
    pub(crate) fn of_addresses(memory: MemorySize) -> Result<Self> {
        let leaf = |function, eax| kvm_cpuid_entry2 { function, eax, ..kvm_cpuid_entry2::default() };
        // Every CPU of 64 bits has the leaf. Intel SDM vol. 2A, CPUID.
        let host = std::arch::x86_64::__cpuid(ADDRESS_SIZES).eax;
        let leaves = vec![leaf(EXTENDED_LEAVES, ADDRESS_SIZES), leaf(ADDRESS_SIZES, host)];
        let own = Self { leaves, count: VcpuCount::ONE };
        own.check_address_bits(memory)?;
        Ok(own)
    }

    /// What this host's KVM can give the `count` vCPUs of a machine, checked against what the machine needs.
    ///
    /// # Errors
    /// [`Error::Kvm`], [`Error::NoGigabytePages`], [`Error::TooFewAddressBits`].
    pub(crate) fn supported(
        kvm: &Kvm,
        page_size: PageSize,
        memory: MemorySize,
        count: VcpuCount,
    ) -> Result<Self> {
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let supported = supported.map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        let own = Self { leaves: supported.as_slice().to_vec(), count };
        if page_size == PageSize::Size1G && !own.has_gigabyte_pages() {
            return Err(Error::NoGigabytePages);
        }
        own.check_address_bits(memory)?;
        Ok(own)
    }

    /// MAXPHYADDR as CPUID shows it; the most that a page-table entry holds where it says nothing or nonsense.
    pub(crate) fn address_bits(&self) -> u32 {
        const MOST: u32 = 52;
        if self.is_silent() {
            return Self::ADDRESS_BITS_UNSAID;
        }
        let said = self.leaves.iter().find(|leaf| leaf.function == ADDRESS_SIZES).map(|leaf| leaf.eax & 0xFF);
        said.filter(|bits| (32..=MOST).contains(bits)).unwrap_or(MOST)
    }

    /// Checks that the CPU can address all RAM: an address with more bits makes a page-table entry invalid.
    /// Intel SDM vol. 2A, CPUID: leaf 80000008h, EAX bits 7 to 0. A CPU that does not say is believed to.
    fn check_address_bits(&self, memory: MemorySize) -> Result<()> {
        let end = ram_regions(memory.bytes()).iter().map(|region| region.end).max().unwrap_or_default();
        match self.address_bits() {
            bits if end > 1 << bits => Err(Error::TooFewAddressBits { memory, end, bits }),
            _ => Ok(()),
        }
    }

    /// Intel SDM vol. 2A, CPUID: leaf 80000001h, EDX bit 26.
    fn has_gigabyte_pages(&self) -> bool {
        const LEAF: u32 = 0x8000_0001;
        const PAGE1GB: u32 = 1 << 26;
        self.leaves.iter().any(|leaf| leaf.function == LEAF && leaf.edx & PAGE1GB != 0)
    }

    /// What the vCPU `id` shows.
    ///
    /// # Errors
    /// [`Error::Kvm`], should there be more leaves than KVM takes.
    pub(crate) fn of(&self, id: VcpuId) -> Result<CpuId> {
        let mut leaves: Vec<_> = self.leaves.iter().filter(|leaf| !is_topology(leaf)).copied().collect();
        leaves.iter_mut().for_each(|leaf| self.personalise(leaf, id));
        for function in TOPOLOGY.into_iter().filter(|function| self.has_leaf(*function)) {
            leaves.extend(self.topology(function, id));
        }
        CpuId::from_entries(&leaves).map_err(|_| {
            let source = std::io::Error::other(format!("{} leaves are more than KVM takes", leaves.len()));
            Error::Kvm { call: "KVM_SET_CPUID2", source }
        })
    }

    fn has_leaf(&self, function: u32) -> bool {
        self.leaves.iter().any(|leaf| leaf.function == function)
    }

    /// Writes who and how many into a leaf that says so.
    fn personalise(&self, leaf: &mut kvm_cpuid_entry2, id: VcpuId) {
        const HTT: u32 = 1 << 28;
        let (number, count) = (u32::from(id.number()), u32::from(self.count.get()));
        match leaf.function {
            1 => {
                leaf.ebx = leaf.ebx & 0xFFFF | count << 16 | number << 24;
                leaf.edx = if count > 1 { leaf.edx | HTT } else { leaf.edx & !HTT };
            }
            // Type 0 is "no more caches". First and second level are a core's own, what is above is everybody's.
            4 if leaf.eax & 0x1F != 0 => {
                let cores = count.next_power_of_two() - 1;
                leaf.eax = leaf.eax & 0x3FFF | sharers(leaf.eax, count) << 14 | cores << 26;
            }
            0x8000_001D if leaf.eax & 0x1F != 0 => {
                leaf.eax = leaf.eax & 0x3FFF | sharers(leaf.eax, count) << 14;
            }
            ADDRESS_SIZES => leaf.ecx = leaf.ecx & !0xF0FF | (count - 1) | self.id_bits() << 12,
            0x8000_001E => (leaf.eax, leaf.ebx, leaf.ecx) = (number, number, 0),
            _ => {}
        }
    }

    /// The subleaves of the topology leaf `function`: a core has one thread, the package all cores.
    fn topology(&self, function: u32, id: VcpuId) -> [kvm_cpuid_entry2; 3] {
        const THREADS: u32 = 1;
        const CORES: u32 = 2;
        let level = |index, shift, cpus, kind: u32| kvm_cpuid_entry2 {
            function,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax: shift,
            ebx: cpus,
            ecx: index | kind << 8,
            edx: id.number().into(),
            ..kvm_cpuid_entry2::default()
        };
        [
            level(0, 0, 1, THREADS),
            level(1, self.id_bits(), self.count.get().into(), CORES),
            level(2, 0, 0, 0), // the end
        ]
    }

    /// Bits of an APIC id that tell the package's CPUs apart.
    fn id_bits(&self) -> u32 {
        u32::from(self.count.get()).next_power_of_two().trailing_zeros()
    }
}

/// The leaf that says which is the last of its kind.
const EXTENDED_LEAVES: u32 = 0x8000_0000;
/// The leaf that says how many bits addresses have.
const ADDRESS_SIZES: u32 = 0x8000_0008;

/// The leaves whose subleaves are the levels of the topology.
const TOPOLOGY: [u32; 2] = [0xB, 0x1F];

fn is_topology(leaf: &kvm_cpuid_entry2) -> bool {
    TOPOLOGY.contains(&leaf.function)
}

/// How many CPUs share a cache, less 1: a cache of the third level is the package's.
fn sharers(eax: u32, count: u32) -> u32 {
    const THIRD_LEVEL: u32 = 3;
    if eax >> 5 & 0b111 >= THIRD_LEVEL { count - 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpuid(count: u64, leaves: &[kvm_cpuid_entry2]) -> Cpuid {
        Cpuid { leaves: leaves.to_vec(), count: VcpuCount::new(count).expect("a count") }
    }

    fn leaf(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, ..kvm_cpuid_entry2::default() }
    }

    #[test]
    fn ram_beyond_the_cpus_physical_addresses_is_refused() {
        let cpuid = cpuid(1, &[kvm_cpuid_entry2 { eax: 0x3024, ..leaf(0x8000_0008) }]);
        let memory = |text: &str| text.parse().expect("a size");

        // 36 bits address 64 GiB, and 64 GiB of RAM end at 65, because of the hole.
        assert!(cpuid.check_address_bits(memory("63G")).is_ok());
        let error = cpuid.check_address_bits(memory("64G")).expect_err("one GiB too many").to_string();
        assert!(error.contains("36") && error.contains("0x1040000000"), "{error}");
    }

    #[test]
    fn a_vcpu_shows_its_number_wherever_cpuid_has_one() {
        let host = [
            kvm_cpuid_entry2 { ebx: 0x0710_0800, ..leaf(1) },
            kvm_cpuid_entry2 { edx: 7, ..leaf(0xB) },
            kvm_cpuid_entry2 { eax: 7, ebx: 0x103, ..leaf(0x8000_001E) },
        ];
        let shown = cpuid(6, &host).of(VcpuId::new(5).expect("a number")).expect("few leaves");
        let find = |function, index| {
            let leaves = shown.as_slice().iter();
            leaves.copied().find(|leaf| leaf.function == function && leaf.index == index).expect("a leaf")
        };
        assert_eq!((find(1, 0).ebx, find(1, 0).edx >> 28 & 1), (0x0506_0800, 1));
        let package = find(0xB, 1);
        assert_eq!((package.eax, package.ebx, package.ecx, package.edx), (3, 6, 0x201, 5));
        assert_eq!((find(0xB, 0).ebx, find(0xB, 2).ecx, find(0x8000_001E, 0).eax), (1, 2, 5));
        assert_eq!(shown.as_slice().iter().filter(|leaf| leaf.function == 0x1F).count(), 0, "KVM has none");
    }

    #[test]
    fn one_cpu_is_alone() {
        let host = [kvm_cpuid_entry2 { ebx: 0x0710_0800, edx: 1 << 28, ..leaf(1) }, leaf(0xB)];
        let shown = cpuid(1, &host).of(VcpuId::FIRST).expect("few leaves");
        let first = shown.as_slice()[0];
        assert_eq!((first.ebx, first.edx), (0x0001_0800, 0));
    }
}
