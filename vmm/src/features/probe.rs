//! The probes: for each feature a guest of a few bytes that needs it.
//!
//! They run in 64-bit mode, ring 0, without an IDT: an exception becomes a triple fault. An instruction that raises one
//! is there when the guest dies of it; one that computes is there when the guest comes to its end.

use std::time::Duration;

use kvm_bindings::{
    CpuId, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, KVM_GUESTDBG_USE_SW_BP,
    KVM_MAX_CPUID_ENTRIES, KVM_SYNC_X86_REGS, kvm_guest_debug,
};
use kvm_ioctls::{Cap, Kvm};
use shared_abi::{layout, ports};

use super::{Feature, Finding, mode};
use crate::boot::cpu_mode::StartMode;
use crate::error::{Error, Result};
use crate::next::StopReason;
use crate::tiny_guest::TinyGuest;
use crate::vm::open_kvm;

/// What a probe that comes to its end ends with.
pub(super) const EXIT_CODE: u8 = 42;

/// The end of a probe. The bytes mean the same in code of 16, 32 and 64 bits.
pub(super) const END: [u8; 6] = [
    0xB0,
    EXIT_CODE, // mov al, 42
    0xE6,
    ports::EXIT as u8, // out 0xF4, al
    0xEB,
    0xFE, // jmp $: never reached, as the run ends above
];

/// No probe executes more than a dozen instructions; one that takes this long is stuck.
pub(super) const TIMEOUT: Duration = Duration::from_secs(2);

/// KVM, opened once, and what it says of its CPU.
pub(super) struct Host {
    kvm: Kvm,
    cpuid: CpuId,
}

impl Host {
    /// Opens KVM.
    pub(super) fn open() -> Result<Self> {
        let kvm = open_kvm()?;
        let cpuid =
            kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        Ok(Self { kvm, cpuid })
    }

    /// Tries a feature.
    pub(super) fn find(&self, feature: Feature) -> Result<Finding> {
        let seen = self.missing(feature)?;
        Ok(Finding { feature: feature.name().to_owned(), present: seen.is_none(), seen })
    }

    /// What was seen instead of the feature; `None` when it is there.
    fn missing(&self, feature: Feature) -> Result<Option<String>> {
        match feature {
            Feature::RealMode => mode::start_in(StartMode::Real),
            Feature::ProtectedMode => mode::start_in(StartMode::Protected),
            Feature::Paging32 => mode::start_in(StartMode::Paged32),
            Feature::Pae => mode::start_in(StartMode::Pae),
            Feature::Virtual8086 => mode::virtual_8086(),
            Feature::FiveLevelPaging => Ok(self.cpuid_lacks(7, |leaf| leaf.ecx, 16)),
            Feature::GigabytePages => Ok(self.cpuid_lacks(0x8000_0001, |leaf| leaf.edx, 26)),
            Feature::NestedSvm => Ok(self.cpuid_lacks(0x8000_0001, |leaf| leaf.ecx, 2)),
            Feature::NestedVmx => Ok(self.cpuid_lacks(1, |leaf| leaf.ecx, 5)),
            Feature::Smm => match self.kvm_lacks(Cap::X86Smm, "KVM_CAP_X86_SMM", 1) {
                Some(lack) => Ok(Some(lack)),
                None => mode::system_management(),
            },
            Feature::SyncRegs => Ok(self.kvm_lacks(Cap::SyncRegs, "KVM_CAP_SYNC_REGS", KVM_SYNC_X86_REGS)),
            Feature::Int3 => raises(&[0xCC]),
            Feature::SoftwareInterrupt => raises(&[0xCD, 0x80]), // int 0x80
            Feature::Popcnt => executes(&[0xF3, 0x48, 0x0F, 0xB8, 0xC1]), // popcnt rax, rcx
            Feature::Cmpxchg16b => executes(&[0xF0, 0x48, 0x0F, 0xC7, 0x4C, 0x24, 0xF0]), // cmpxchg16b [rsp-16]
            Feature::Sse => executes(&[0x0F, 0x58, 0xC0]),                                // addps xmm0, xmm0
            Feature::X87 => executes(&[0xD9, 0xE8]),                                      // fld1
            Feature::Rdtscp => executes(&[0x0F, 0x01, 0xF9]),
            Feature::Smap => executes(&[0x0F, 0x01, 0xCA]), // clac
            Feature::SingleStep => stops(KVM_GUESTDBG_SINGLESTEP, Breakpoint::None),
            Feature::SoftwareBreakpoint => stops(KVM_GUESTDBG_USE_SW_BP, Breakpoint::Int3),
            Feature::HardwareBreakpoint => stops(KVM_GUESTDBG_USE_HW_BP, Breakpoint::Execution),
            Feature::Watchpoint => stops(KVM_GUESTDBG_USE_HW_BP, Breakpoint::Write),
            Feature::StateAfterTripleFault => state_after_triple_fault(),
        }
    }

    /// Whether KVM offers the guest no such bit of CPUID (Intel SDM vol. 2A, CPUID; AMD APM vol. 3, appendix E).
    fn cpuid_lacks(
        &self,
        function: u32,
        register: impl Fn(&kvm_bindings::kvm_cpuid_entry2) -> u32,
        bit: u32,
    ) -> Option<String> {
        let leaf = self.cpuid.as_slice().iter().find(|entry| entry.function == function && entry.index == 0);
        let is_there = leaf.is_some_and(|leaf| register(leaf) >> bit & 1 == 1);
        (!is_there).then(|| format!("CPUID leaf {function:#x} does not offer it"))
    }

    fn kvm_lacks(&self, capability: Cap, name: &str, bits: u32) -> Option<String> {
        let is_there = self.kvm.check_extension_int(capability).cast_unsigned() & bits != 0;
        (!is_there).then(|| format!("KVM lacks {name}"))
    }
}

/// Tries instructions that compute: the guest must come to its end.
fn executes(code: &[u8]) -> Result<Option<String>> {
    let report = TinyGuest { code: &[code, &END].concat(), timeout: TIMEOUT }.run()?;
    Ok(other_than_the_end(&report.stop))
}

/// What a probe stopped of that should have come to its end; `None` when it did.
pub(super) fn other_than_the_end(stop: &StopReason) -> Option<String> {
    const WANTED: StopReason = StopReason::Exited { code: EXIT_CODE as u32 };
    (*stop != WANTED).then(|| seen(stop))
}

/// How a probe ended that should have ended otherwise.
fn seen(stop: &StopReason) -> String {
    match stop {
        StopReason::EmulationFailure(_) => "KVM has to emulate the instruction and cannot".to_owned(),
        StopReason::TripleFault => "the CPU refuses the instruction".to_owned(),
        StopReason::Exited { .. } => "the guest ran on".to_owned(),
        stop => stop.to_string(),
    }
}

/// Tries an instruction that raises an exception: without an IDT the guest must die of it.
fn raises(code: &[u8]) -> Result<Option<String>> {
    let report = TinyGuest { code: &[code, &END].concat(), timeout: TIMEOUT }.run()?;
    Ok((report.stop != StopReason::TripleFault).then(|| seen(&report.stop)))
}

/// Where a debugger wants the guest to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Breakpoint {
    None,
    Int3,
    Execution,
    Write,
}

/// Tries whether a debugger is told. The guest writes a byte to its stack, and ends.
fn stops(control: u32, breakpoint: Breakpoint) -> Result<Option<String>> {
    const WRITE: [u8; 5] = [0xC6, 0x44, 0x24, 0xF0, 1]; // mov byte [rsp-16], 1
    let code = match breakpoint {
        Breakpoint::Int3 => [&[0xCC], &END[..]].concat(),
        _ => [&WRITE, &END[..]].concat(),
    };
    let mut vm = TinyGuest { code: &code, timeout: TIMEOUT }.build()?;
    let mut debug = kvm_guest_debug { control: KVM_GUESTDBG_ENABLE | control, ..Default::default() };
    // DR0 and DR7 (Intel SDM vol. 3B, 18.2.4): L0, and for a write R/W0 = 01, LEN0 = 00.
    let [address, _, _, _, _, _, _, dr7] = &mut debug.arch.debugreg;
    match breakpoint {
        Breakpoint::None | Breakpoint::Int3 => {}
        Breakpoint::Execution => (*address, *dr7) = (layout::KERNEL.0 + WRITE.len() as u64, 0x0000_0401),
        Breakpoint::Write => (*address, *dr7) = (layout::STACK_END.0 - 16, 0x0001_0401),
    }
    vm.vcpu().set_guest_debug(&debug)?;
    let stop = vm.run()?.stop;
    Ok(match stop {
        StopReason::Debug(_) => None,
        StopReason::TripleFault => {
            Some("the exception goes to the guest, and KVM does not tell of it".to_owned())
        }
        stop => Some(seen(&stop)),
    })
}

/// Tries what is left of the registers of a guest that died at its first instruction.
fn state_after_triple_fault() -> Result<Option<String>> {
    let mut vm = TinyGuest { code: &[0x0F, 0x0B], timeout: TIMEOUT }.build()?; // ud2
    vm.run()?;
    let rip = vm.vcpu().registers()?.rip;
    Ok((rip != layout::KERNEL.0).then(|| format!("KVM resets the vCPU: RIP is {rip:#x}")))
}
