//! `Vm`: a virtual machine, and the order in which one comes to life.

use std::sync::Arc;
use std::{io, iter};

use kvm_ioctls::Kvm;
use shared_abi::Gva;

use crate::boot::contract::Contract;
use crate::boot::cpu_mode::{RegisterOrigins, StartMode};
use crate::boot::guest_map::GuestMap;
use crate::boot::kernel::{KernelImage, Start};
use crate::boot::{self, Boot, BootOrigins, CpuidNeed, boot_info};
use crate::config::{Blueprint, VmConfig};
use crate::cpuid::Cpuid;
use crate::cpus::{VcpuCount, VcpuId};
use crate::crew::Life;
use crate::debug::{CpuState, Diagnosis, Evidence, Symbols, bystanders, repeat};
use crate::error::{Error, Result};
use crate::hypercall::{Files, Journal};
use crate::interrupts::{self, IrqLine, MessageLine};
use crate::machine::{Machine, Parts};
use crate::memory::GuestMemory;
use crate::memory_slots::MemorySlots;
use crate::next::StopReason;
use crate::observe::{ExitCounts, Handlers, Observer};
use crate::report::RunReport;
use crate::session::Session;
use crate::stop::StopHandle;
use crate::vcpu::Vcpu;

/// The KVM API version, the same since Linux 2.6.22 (Linux Documentation/virt/kvm/api.rst, 4.1).
pub const KVM_API_VERSION: i32 = 12;

/// A virtual machine, ready to run.
///
/// Fields are dropped in order: the vCPUs close first, then the VM, then the memory they map goes.
#[derive(Debug)]
pub struct Vm {
    /// The first vCPU.
    pub(crate) vcpu: Vcpu,
    /// The others.
    pub(crate) others: Vec<Vcpu>,
    /// The vCPU that the last run has ended on; before that the first.
    pub(crate) stopped: VcpuId,
    pub(crate) machine: Machine,
    pub(crate) lineage: Arc<Lineage>,
    /// How often it was run.
    pub(crate) runs: u32,
    /// Whether it has gone on from a snapshot, so that its past is not all its own.
    pub(crate) is_continued: bool,
}

/// What a machine has in common with all that go on from its snapshots: how it started.
#[derive(Debug)]
pub(crate) struct Lineage {
    pub(crate) map: GuestMap,
    pub(crate) image: KernelImage,
    pub(crate) origins: Origins,
    /// How many bits a physical address may have.
    pub(crate) address_bits: u32,
    pub(crate) blueprint: Blueprint,
}

/// The lines that brought a machine to life; what they made keeps the others.
#[derive(Clone, Copy, Debug)]
pub struct Origins {
    /// What filled its memory.
    pub boot: BootOrigins,
    /// What set the registers of the first vCPU.
    pub registers: RegisterOrigins,
}

impl Vm {
    /// Builds the machine that `config` describes.
    ///
    /// The image is checked before KVM is opened, so a bad image never costs a machine.
    ///
    /// # Errors
    /// What the host could not do, or what is wrong with the image.
    pub fn build(config: VmConfig) -> Result<Self> {
        let blueprint = config.blueprint();
        let mut image = KernelImage::open_as(&config.kernel, config.start)?;
        let memory = GuestMemory::allocate(config.memory, config.backing)?;
        let Boot { map, cpu, interrupts, cpuid, arguments, origins: boot } =
            boot::prepare(&config, &mut image, &memory)?;
        let files = Files::new(config.directory)?;

        let kvm = open_kvm()?;
        check_vcpu_count(&kvm, config.vcpus)?;
        let cpuid = match cpuid {
            CpuidNeed::Everything => Cpuid::supported(&kvm, config.page_size, config.memory, config.vcpus)?,
            CpuidNeed::Addresses => Cpuid::of_addresses(config.memory)?,
            CpuidNeed::Nothing => Cpuid::silent(),
        };
        let vm = kvm.create_vm().map_err(Error::kvm("KVM_CREATE_VM"))?;
        let mut slots = MemorySlots::new(&kvm, &memory, config.vcpus);
        slots.register_start(&vm, &map)?;
        if interrupts {
            // Before the first vCPU, which gets its local APIC when it is made.
            interrupts::enable_local_apics(&vm)?;
        }
        let create = |id| {
            let vcpu = Vcpu::create(&kvm, &vm, id)?;
            if !cpuid.is_silent() {
                vcpu.set_cpuid(&cpuid.of(id)?)?;
            }
            Ok(vcpu)
        };
        let mut vcpu = create(VcpuId::FIRST)?;
        let registers = vcpu.begin_in(&cpu)?;
        if interrupts && map.mode() == StartMode::Long {
            boot_info::write_tsc_khz(vcpu.tsc_khz(), &memory);
        }
        // They start when the guest asks for it (`crew.rs`).
        let others = config.vcpus.ids().skip(1).map(create).collect::<Result<_>>()?;
        let (origins, address_bits) = (Origins { boot, registers }, cpuid.address_bits());

        let machine = Machine::new(Parts {
            vm,
            memory,
            slots,
            vcpus: config.vcpus,
            interrupts,
            time_limit: config.timeout,
            has_hypercalls: config.contract == Contract::Required,
            arguments,
            console: config.console,
            input: config.input,
            snapshots: config.snapshots,
            log: config.log,
            files,
        })?;
        if repeat::may_be_needed() && !interrupts && config.vcpus == VcpuCount::ONE {
            *machine.journal() = Journal::recording();
        }
        let stopped = VcpuId::FIRST;
        let lineage = Arc::new(Lineage { map, image, origins, address_bits, blueprint });
        Ok(Self { vcpu, others, stopped, machine, lineage, runs: 0, is_continued: false })
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
        Ok(self.report(stop, *observer.counts()))
    }

    /// The report of a run that stopped for this reason. A panic is told once.
    #[must_use]
    pub fn report(&self, stop: StopReason, exits: ExitCounts) -> RunReport {
        let rip = match &stop {
            StopReason::Exception(frame) => Some(Gva(frame.rip)),
            _ => self.vcpu().rip(),
        };
        let vcpu = (!self.others.is_empty()).then_some(self.stopped);
        RunReport { stop, vcpu, rip, panic: self.machine.panic_text().take(), exits }
    }

    /// Makes ready for a run in pieces, as a debugger wants it. The time limit counts from now.
    ///
    /// # Errors
    /// [`Error::Stop`].
    pub fn session(&mut self) -> Result<Session<'_>> {
        self.runs += 1;
        Session::start(self)
    }

    /// Makes every access to registers an ioctl, as on hosts without KVM_CAP_SYNC_REGS: to test and to compare.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn forgo_register_sync(&mut self) -> Result<()> {
        self.vcpus_mut().try_for_each(Vcpu::forgo_register_sync)
    }

    /// A handle that stops this machine from anywhere.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.machine.stop.clone()
    }

    /// The machine's RAM, as the guest left it.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.machine.memory
    }

    /// The line that leads to `pin` of the machine's I/O APIC, for any thread to press.
    ///
    /// # Errors
    /// [`Error::NoIrqLine`].
    pub fn irq_line(&self, pin: u8) -> Result<IrqLine> {
        self.machine
            .irq_line(pin)
            .ok_or(Error::NoIrqLine { pin, has_interrupts: self.machine.has_interrupts() })
    }

    /// The way of messages to the machine's local APICs, for any thread; `None` when it has none.
    #[must_use]
    pub fn message_line(&self) -> Option<MessageLine> {
        self.machine.message_line()
    }

    /// The guest's arguments, each with a NUL behind it.
    #[must_use]
    pub fn arguments(&self) -> &[u8] {
        self.machine.arguments()
    }

    /// The image that the guest was started from.
    #[must_use]
    pub fn image(&self) -> &KernelImage {
        &self.lineage.image
    }

    /// The names and lines that the image tells about the guest's addresses. It is read now: nothing pays for it before.
    #[must_use]
    pub fn symbols(&self) -> Symbols {
        if self.lineage.image.start() != Start::default() {
            let form = if self.lineage.image.is_flat() { "a flat image" } else { "ELF32" };
            return Symbols::none(format!("they are read from ELF64, and this is {form}"));
        }
        match self.lineage.image.bytes() {
            Ok(bytes) => Symbols::read(&bytes),
            Err(error) => Symbols::none(format!("the image cannot be read any more: {error}")),
        }
    }

    /// Finds out why the run that `report` tells of ended, and where in the guest's source.
    #[must_use]
    pub fn diagnose(&self, report: &RunReport) -> Diagnosis {
        self.diagnose_with(report, &self.symbols())
    }

    /// The same, with what `symbols` tell about addresses.
    #[must_use]
    pub fn diagnose_with(&self, report: &RunReport, symbols: &Symbols) -> Diagnosis {
        let state = match self.cpu_state() {
            Ok(state) => state,
            Err(error) => {
                let remarks = vec![format!("the registers cannot be read: {error}")];
                let cause = report.to_string();
                return Diagnosis { cause, vcpu: report.vcpu, remarks, ..Diagnosis::default() };
            }
        };
        let lost = report.stop == StopReason::TripleFault && state.is_reset();
        let mut diagnosis = if lost {
            self.diagnose_lost(report, symbols, &state)
        } else {
            self.evidence(report, symbols, &state).diagnose()
        };
        self.tell_halt(report, &mut diagnosis);
        diagnosis.vcpu = report.vcpu;
        diagnosis.others = bystanders::of(self, report, symbols);
        diagnosis
    }

    /// Adds that the guest had halted when it was stopped: with interrupt controllers that ends no run.
    fn tell_halt(&self, report: &RunReport, diagnosis: &mut Diagnosis) {
        let was_stopped = matches!(report.stop, StopReason::TimedOut { .. } | StopReason::Interrupted);
        if !was_stopped || !self.machine.has_interrupts() {
            return;
        }
        match self.vcpu().life() {
            Ok(Life::Halted { interrupts_enabled: true }) => {
                diagnosis.facts.push("it has halted, and waits for an interrupt".to_owned());
            }
            Ok(Life::Halted { interrupts_enabled: false }) => {
                diagnosis.facts.push("it has halted with interrupts off: nothing could wake it".to_owned());
                diagnosis.hint =
                    Some("turn interrupts on in front of `hlt`, or end the run (`power::exit`)".to_owned());
            }
            _ => {}
        }
    }

    fn evidence<'a>(
        &'a self,
        report: &'a RunReport,
        symbols: &'a Symbols,
        state: &'a CpuState,
    ) -> Evidence<'a> {
        Evidence { report, state, memory: self.memory(), map: self.map(), symbols, is_repeated: false }
    }

    /// KVM has reset the vCPU: the guest is run once more, to be seen before that.
    fn diagnose_lost(&self, report: &RunReport, symbols: &Symbols, state: &CpuState) -> Diagnosis {
        match self.repeat(report) {
            Ok(Caught { state, vm }) => {
                let evidence = Evidence { is_repeated: true, ..vm.evidence(report, symbols, &state) };
                let mut diagnosis = evidence.diagnose();
                diagnosis.remarks.push(repeat::REMARK.to_owned());
                diagnosis
            }
            Err(why) => self.evidence(report, symbols, state).diagnose_lost(&why),
        }
    }

    /// Runs the guest once more, in a machine of its own that touches nothing outside, and catches it just before the
    /// triple fault that `report` tells of. Its answers come from the journal of this machine.
    ///
    /// # Errors
    /// Why it could not be caught, as a clause.
    pub fn repeat(&self, report: &RunReport) -> std::result::Result<Caught, String> {
        if !self.others.is_empty() {
            return Err("several vCPUs do not do the same in the same order twice".to_owned());
        }
        if self.is_continued {
            return Err("it went on from a snapshot, and what came before is not known".to_owned());
        }
        if self.runs != 1 {
            return Err(format!("the machine was run {} times", self.runs));
        }
        if self.machine.has_interrupts() {
            return Err("it has interrupts, and they would come at other moments".to_owned());
        }
        let image =
            self.image().bytes().map_err(|error| format!("the image cannot be read any more: {error}"))?;
        let journal = self.machine.journal().replay()?;
        let vm = Self::build(self.lineage.blueprint.config(image)).map_err(|error| error.to_string())?;
        *vm.machine.journal() = journal;
        vm.run_to_death(report.exits.total() - report.exits.interrupted)
    }

    fn run_to_death(mut self, exits: u64) -> std::result::Result<Caught, String> {
        let Self { vcpu, machine, .. } = &mut self;
        let state = repeat::run_to_death(vcpu, machine, exits)?;
        Ok(Caught { state, vm: self })
    }

    /// Keeps what the guest is told, so that its run can be repeated; where KVM loses the registers of a guest that
    /// dies, that is so by itself.
    pub fn keep_journal(&mut self) {
        *self.machine.journal() = Journal::recording();
    }

    /// The registers as they are now, of the vCPU that the last run has ended on; before that of the first.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn cpu_state(&self) -> Result<CpuState> {
        CpuState::of(self.vcpu())
    }

    /// What was put where at start.
    #[must_use]
    pub fn map(&self) -> &GuestMap {
        &self.lineage.map
    }

    /// What answers at this machine's ports and addresses, by name.
    #[must_use]
    pub fn handlers(&self) -> Handlers {
        Handlers::of(&self.machine)
    }

    /// Has all that looks at a vCPU look at this one, until the next run ends. False when the machine has no such.
    pub fn look_at(&mut self, vcpu: VcpuId) -> bool {
        let is_there = vcpu.number() < self.vcpu_count().get();
        if is_there {
            self.stopped = vcpu;
        }
        is_there
    }

    /// The vCPU that is looked at: the one that the last run has ended on, before that the first.
    #[must_use]
    pub fn vcpu(&self) -> &Vcpu {
        self.vcpus().nth(self.stopped.index()).expect("a run ends on one of the vCPUs")
    }

    /// The same, to look at what it shares with KVM.
    pub(crate) fn vcpu_mut(&mut self) -> &mut Vcpu {
        let Self { vcpu, others, stopped, .. } = self;
        let mut vcpus = iter::once(vcpu).chain(others);
        vcpus.nth(stopped.index()).expect("a run ends on one of the vCPUs")
    }

    /// All vCPUs, in order, to set their registers.
    pub(crate) fn vcpus_mut(&mut self) -> impl Iterator<Item = &mut Vcpu> {
        iter::once(&mut self.vcpu).chain(&mut self.others)
    }

    /// All vCPUs, in order.
    pub fn vcpus(&self) -> impl Iterator<Item = &Vcpu> {
        iter::once(&self.vcpu).chain(&self.others)
    }

    /// How many vCPUs the machine has.
    ///
    /// # Panics
    /// Never: it was built with a number of them.
    #[must_use]
    pub fn vcpu_count(&self) -> VcpuCount {
        VcpuCount::new(1 + self.others.len() as u64).expect("it was built with a number of vCPUs")
    }

    /// What all vCPUs share.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The lines that brought it to life.
    #[must_use]
    pub fn origins(&self) -> Origins {
        self.lineage.origins
    }

    /// How many bits a physical address of this machine may have: MAXPHYADDR.
    #[must_use]
    pub fn address_bits(&self) -> u32 {
        self.lineage.address_bits
    }
}

/// A guest just before its death.
#[derive(Debug)]
pub struct Caught {
    /// The registers before the instruction that killed it.
    pub state: CpuState,
    /// The machine it was caught in.
    pub vm: Vm,
}

pub(crate) fn open_kvm() -> Result<Kvm> {
    let kvm = Kvm::new().map_err(|errno| Error::OpenKvm(io::Error::from_raw_os_error(errno.errno())))?;
    match kvm.get_api_version() {
        KVM_API_VERSION => Ok(kvm),
        other => Err(Error::ApiVersion(other)),
    }
}

/// Checks that KVM can give a machine so many vCPUs.
pub(crate) fn check_vcpu_count(kvm: &Kvm, wanted: VcpuCount) -> Result<()> {
    if wanted == VcpuCount::ONE {
        return Ok(());
    }
    let most = kvm.get_max_vcpus();
    if usize::from(wanted.get()) > most { Err(Error::TooManyVcpus { wanted, most }) } else { Ok(()) }
}

/// A machine goes to other threads, and can be looked at from several.
const _: () = {
    const fn is_for_threads<T: Send + Sync>() {}
    is_for_threads::<Vm>();
};
