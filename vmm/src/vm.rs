//! `Vm`: a virtual machine, and the order in which one comes to life.

use std::io;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;
use shared_abi::boot_info::ram_regions;

use crate::boot::contract::Contract;
use crate::boot::guest_map::GuestMap;
use crate::boot::kernel::KernelImage;
use crate::boot::{self, Boot};
use crate::config::{MemorySize, PageSize, VmConfig};
use crate::debug::{CpuState, Symbols};
use crate::error::{Error, Result};
use crate::hypercall::Files;
use crate::machine::{Machine, Parts};
use crate::memory::GuestMemory;
use crate::memory_slots::MemorySlots;
use crate::observe::{ExitCounts, Observer};
use crate::report::RunReport;
use crate::session::Session;
use crate::stop::StopHandle;
use crate::vcpu::Vcpu;

/// The KVM API version, the same since Linux 2.6.22 (Linux Documentation/virt/kvm/api.rst, 4.1).
pub const KVM_API_VERSION: i32 = 12;

/// A virtual machine, ready to run.
///
/// Fields are dropped in order: the vCPU closes first, then the VM, then the memory they map goes.
#[derive(Debug)]
pub struct Vm {
    pub(crate) vcpu: Vcpu,
    pub(crate) machine: Machine,
    map: GuestMap,
    image: KernelImage,
}

impl Vm {
    /// Builds the machine that `config` describes.
    ///
    /// The image is checked before KVM is opened, so a bad image never costs a machine.
    ///
    /// # Errors
    /// What the host could not do, or what is wrong with the image.
    pub fn build(config: VmConfig) -> Result<Self> {
        let mut image = KernelImage::open(&config.kernel)?;
        let memory = GuestMemory::allocate(config.memory, config.backing)?;
        let Boot { map, cpu, arguments } = boot::prepare(&config, &mut image, &memory)?;
        let files = Files::new(config.directory)?;

        let kvm = open_kvm()?;
        let cpuid = supported_cpuid(&kvm, config.page_size, config.memory)?;
        let vm = kvm.create_vm().map_err(Error::kvm("KVM_CREATE_VM"))?;
        let mut slots = MemorySlots::new(&kvm, &memory);
        slots.register_start(&vm, &map)?;
        let vcpu = Vcpu::create(&kvm, &vm, 0)?;
        vcpu.set_cpuid(&cpuid)?;
        vcpu.start_in(&cpu)?;

        let machine = Machine::new(Parts {
            vm,
            memory,
            slots,
            time_limit: config.timeout,
            has_hypercalls: config.contract == Contract::Required,
            arguments,
            console: config.console,
            input: config.input,
            log: config.log,
            files,
        });
        Ok(Self { vcpu, machine, map, image })
    }

    /// Runs the guest until it stops. A machine that has stopped may be run again, unless it was stopped from outside: a
    /// request to stop stays. Most guests just stop again.
    ///
    /// # Errors
    /// Only what the host could not do. Whatever the guest does is in the report.
    pub fn run(&mut self) -> Result<RunReport> {
        self.run_observed(&mut ExitCounts::default())
    }

    /// Runs as [`run`](Self::run) does, with somebody watching.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_observed(&mut self, observer: &mut impl Observer) -> Result<RunReport> {
        let stop = self.session()?.resume(observer)?;
        Ok(RunReport { rip: self.vcpu.rip(), stop, exits: *observer.counts() })
    }

    /// Makes ready for a run in pieces, as a debugger wants it. The time limit counts from now.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn session(&mut self) -> Result<Session<'_>> {
        Session::start(self)
    }

    /// Makes every access to registers an ioctl, as on hosts without KVM_CAP_SYNC_REGS: to test and to compare.
    pub fn forgo_register_sync(&mut self) {
        self.vcpu.forgo_register_sync();
    }

    /// A handle that stops this machine from anywhere.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.machine.stop.clone()
    }

    /// The machine's RAM, as the guest left it.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.machine.memory
    }

    /// The image that the guest was started from.
    #[must_use]
    pub fn image(&self) -> &KernelImage {
        &self.image
    }

    /// The names and lines that the image tells about the guest's addresses. It is read now: nothing pays for it before.
    #[must_use]
    pub fn symbols(&self) -> Symbols {
        match self.image.bytes() {
            Ok(bytes) => Symbols::read(&bytes),
            Err(error) => Symbols::none(format!("the image cannot be read any more: {error}")),
        }
    }

    /// The first vCPU's registers as they are now.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn cpu_state(&self) -> Result<CpuState> {
        CpuState::of(&self.vcpu)
    }

    /// What was put where at start.
    #[must_use]
    pub fn map(&self) -> &GuestMap {
        &self.map
    }

    /// The first vCPU.
    #[must_use]
    pub fn vcpu(&self) -> &Vcpu {
        &self.vcpu
    }
}

pub(crate) fn open_kvm() -> Result<Kvm> {
    let kvm = Kvm::new().map_err(|errno| Error::OpenKvm(io::Error::from_raw_os_error(errno.errno())))?;
    match kvm.get_api_version() {
        KVM_API_VERSION => Ok(kvm),
        other => Err(Error::ApiVersion(other)),
    }
}

/// The CPU as the guest will see it: all that the host's CPU has and KVM can give.
fn supported_cpuid(kvm: &Kvm, page_size: PageSize, memory: MemorySize) -> Result<CpuId> {
    let cpuid =
        kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))?;
    if page_size == PageSize::Size1G && !has_gigabyte_pages(&cpuid) {
        return Err(Error::NoGigabytePages);
    }
    check_address_bits(&cpuid, memory)?;
    Ok(cpuid)
}

/// Checks that the CPU can address all RAM: an address with more bits makes a page-table entry invalid.
/// Intel SDM vol. 2A, CPUID: leaf 80000008h, EAX bits 7 to 0. A CPU that does not say is believed to.
fn check_address_bits(cpuid: &CpuId, memory: MemorySize) -> Result<()> {
    const LEAF: u32 = 0x8000_0008;
    let said = cpuid.as_slice().iter().find(|entry| entry.function == LEAF).map(|entry| entry.eax & 0xFF);
    let end = ram_regions(memory.bytes()).iter().map(|region| region.end).max().unwrap_or_default();
    match said {
        Some(bits @ 32..64) if end > 1 << bits => Err(Error::TooFewAddressBits { memory, end, bits }),
        _ => Ok(()),
    }
}

/// Intel SDM vol. 2A, CPUID: leaf 80000001h, EDX bit 26.
fn has_gigabyte_pages(cpuid: &CpuId) -> bool {
    const LEAF: u32 = 0x8000_0001;
    const PAGE1GB: u32 = 1 << 26;
    cpuid.as_slice().iter().any(|entry| entry.function == LEAF && entry.edx & PAGE1GB != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_beyond_the_cpus_physical_addresses_is_refused() {
        let entry =
            kvm_bindings::kvm_cpuid_entry2 { function: 0x8000_0008, eax: 0x3024, ..Default::default() };
        let cpuid = CpuId::from_entries(&[entry]).expect("one entry");
        let memory = |text: &str| text.parse().expect("a size");

        // 36 bits address 64 GiB, and 64 GiB of RAM end at 65, because of the hole.
        assert!(check_address_bits(&cpuid, memory("63G")).is_ok());
        let error = check_address_bits(&cpuid, memory("64G")).expect_err("one GiB too many").to_string();
        assert!(error.contains("36") && error.contains("0x1040000000"), "{error}");
    }
}
