//! A CPU's registers, out of KVM and back.
//!
//! The order in which they go back matters. CPUID comes first, as it decides which bits control registers may have. The
//! local APIC comes behind the control registers, which hold its mode; model-specific registers come behind the APIC, as
//! one of them sets its timer. What the CPU is about to be interrupted by comes last.
//!
//! | registers | a machine that is restored | why |
//! |---|---|---|
//! | general, special, events | with KVM_RUN | that takes one call, where ioctls take three |
//! | XSAVE, XCR0, debug, MSRs | an ioctl each | a guest changes them without any exit, so nobody knows whether it has |
//! | local APIC, multiprocessor state | an ioctl each, where there is one | the same |
//! | time-stamp counter | not | it goes on |
//! | CPUID | not | nobody can have changed it |

use std::sync::{Mutex, PoisonError};

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MAX_MSR_ENTRIES, Msrs, kvm_msr_entry, kvm_regs};
use kvm_ioctls::{Kvm, VcpuFd};

use super::state::{ApicState, VcpuState};
use crate::crew::Life;
use crate::error::{Error, Result};
use crate::vcpu::Vcpu;

/// IA32_TIME_STAMP_COUNTER.
const TSC: u32 = 0x10;
/// To write to one of these makes KVM write the time into guest memory; there is nothing in them to keep.
const WALL_CLOCKS: [u32; 2] = [0x11, 0x4b56_4d00];

impl VcpuState {
    /// What `vcpu` holds now. It stands, and no exit of it is unfinished.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub(super) fn of(vcpu: &Vcpu, kvm: &Kvm, has_apic: bool, life: Option<Life>) -> Result<Self> {
        let fd = vcpu.fd()?;
        let apic = has_apic.then(|| ApicState::of(fd)).transpose()?;
        let cpuid =
            fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(Error::kvm("KVM_GET_CPUID2"))?.as_slice().to_vec();
        Ok(Self {
            cpuid,
            regs: vcpu.registers()?,
            sregs: vcpu.special_registers()?,
            events: fd.get_vcpu_events().map_err(Error::kvm("KVM_GET_VCPU_EVENTS"))?,
            xsave: Box::new(fd.get_xsave().map_err(Error::kvm("KVM_GET_XSAVE"))?),
            xcrs: fd.get_xcrs().map_err(Error::kvm("KVM_GET_XCRS"))?,
            debug: fd.get_debug_regs().map_err(Error::kvm("KVM_GET_DEBUGREGS"))?,
            msrs: keepable_msrs(fd, kvm)?,
            tsc: read_msr(fd, TSC)?,
            apic,
            life,
        })
    }

    /// Gives a new `vcpu` all of it. One that waits for an answer gets it in RDI.
    ///
    /// # Errors
    /// [`Error::Kvm`], [`Error::MsrRefused`].
    pub(super) fn start(&self, vcpu: &mut Vcpu, answer: Option<u64>) -> Result<()> {
        // A guest that never asks is shown nothing.
        if !self.cpuid.is_empty() {
            let shown = CpuId::from_entries(&self.cpuid);
            vcpu.set_cpuid(&shown.map_err(|_| too_many("KVM_SET_CPUID2", self.cpuid.len()))?)?;
        }
        vcpu.set_special_registers(&self.sregs)?;
        let tsc = kvm_msr_entry { index: TSC, data: self.tsc, ..kvm_msr_entry::default() };
        self.set_others(vcpu, &[tsc])?;
        // Not by an entry: then this thread would be the vCPU's, and KVM takes long to let another thread have it.
        self.set_running(vcpu, answer)
    }

    /// Gives it back to the `vcpu` that it is of. No exit of it is unfinished.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(super) fn restore(&self, vcpu: &mut Vcpu, answer: Option<u64>) -> Result<()> {
        if self.apic.is_none() {
            self.set_others(vcpu, &[])?;
            return vcpu.enter_with(&self.regs_with(answer), &self.sregs, &self.events);
        }
        // One that waits to be started takes nothing at an entry.
        vcpu.set_special_registers(&self.sregs)?;
        self.set_others(vcpu, &[])?;
        self.set_running(vcpu, answer)
    }

    fn set_running(&self, vcpu: &Vcpu, answer: Option<u64>) -> Result<()> {
        vcpu.set_registers(&self.regs_with(answer))?;
        vcpu.fd()?.set_vcpu_events(&self.events).map_err(Error::kvm("KVM_SET_VCPU_EVENTS"))
    }

    fn regs_with(&self, answer: Option<u64>) -> kvm_regs {
        kvm_regs { rdi: answer.unwrap_or(self.regs.rdi), ..self.regs }
    }

    /// Sets what is neither general nor special.
    fn set_others(&self, vcpu: &Vcpu, first_msrs: &[kvm_msr_entry]) -> Result<()> {
        let fd = vcpu.fd()?;
        if let Some(apic) = &self.apic {
            apic.set(fd)?;
        }
        if self.xcrs.nr_xcrs > 0 {
            fd.set_xcrs(&self.xcrs).map_err(Error::kvm("KVM_SET_XCRS"))?;
        }
        // SAFETY: KVM reads more than these 4096 bytes only where the process has asked for larger state by arch_prctl, and
        // nobody here does; `take` has checked that KVM wants no more.
        unsafe { fd.set_xsave(&self.xsave) }.map_err(Error::kvm("KVM_SET_XSAVE"))?;
        fd.set_debug_regs(&self.debug).map_err(Error::kvm("KVM_SET_DEBUGREGS"))?;
        set_msrs(fd, first_msrs, &self.msrs)
    }
}

impl ApicState {
    fn of(fd: &VcpuFd) -> Result<Self> {
        Ok(Self {
            registers: Box::new(fd.get_lapic().map_err(Error::kvm("KVM_GET_LAPIC"))?),
            mp_state: fd.get_mp_state().map_err(Error::kvm("KVM_GET_MP_STATE"))?,
        })
    }

    fn set(&self, fd: &VcpuFd) -> Result<()> {
        fd.set_lapic(&self.registers).map_err(Error::kvm("KVM_SET_LAPIC"))?;
        fd.set_mp_state(self.mp_state).map_err(Error::kvm("KVM_SET_MP_STATE"))
    }
}

/// The model-specific registers that KVM tells of and takes back, with what they hold. KVM lists more than that: some can
/// only be written, some only be read, and which ones depends on the host.
fn keepable_msrs(fd: &VcpuFd, kvm: &Kvm) -> Result<Vec<kvm_msr_entry>> {
    // Those that this host's KVM has refused before: each costs two calls to find.
    static REFUSED: Mutex<Vec<u32>> = Mutex::new(Vec::new());
    let listed = kvm.get_msr_index_list().map_err(Error::kvm("KVM_GET_MSR_INDEX_LIST"))?;
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut wanted: Vec<_> = listed.as_slice().to_vec();
    wanted.retain(|index| *index != TSC && !WALL_CLOCKS.contains(index) && !refused.contains(index));
    loop {
        let entries: Vec<_> =
            wanted.iter().map(|index| kvm_msr_entry { index: *index, ..kvm_msr_entry::default() }).collect();
        let mut msrs = wrap(&entries, "KVM_GET_MSRS")?;
        let read = fd.get_msrs(&mut msrs).map_err(Error::kvm("KVM_GET_MSRS"))?;
        let first_refused = if read < wanted.len() {
            read
        } else {
            fd.set_msrs(&msrs).map_err(Error::kvm("KVM_SET_MSRS"))?
        };
        if first_refused >= wanted.len() {
            return Ok(msrs.as_slice().to_vec());
        }
        refused.push(wanted.remove(first_refused));
    }
}

fn read_msr(fd: &VcpuFd, index: u32) -> Result<u64> {
    let mut msrs = wrap(&[kvm_msr_entry { index, ..kvm_msr_entry::default() }], "KVM_GET_MSRS")?;
    fd.get_msrs(&mut msrs).map_err(Error::kvm("KVM_GET_MSRS"))?;
    Ok(msrs.as_slice().first().map_or(0, |entry| entry.data))
}

fn set_msrs(fd: &VcpuFd, first: &[kvm_msr_entry], others: &[kvm_msr_entry]) -> Result<()> {
    let msrs = wrap(&[first, others].concat(), "KVM_SET_MSRS")?;
    let taken = fd.set_msrs(&msrs).map_err(Error::kvm("KVM_SET_MSRS"))?;
    match msrs.as_slice().get(taken) {
        Some(kvm_msr_entry { index, data, .. }) => Err(Error::MsrRefused { index: *index, value: *data }),
        None => Ok(()),
    }
}

fn wrap(entries: &[kvm_msr_entry], call: &'static str) -> Result<Msrs> {
    Msrs::from_entries(entries).map_err(|_| too_many(call, entries.len()))
}

fn too_many(call: &'static str, count: usize) -> Error {
    let source = std::io::Error::other(format!("{count} entries are more than KVM takes"));
    Error::Kvm { call, source }
}

const _: () = assert!(KVM_MAX_MSR_ENTRIES >= 256);
