//! What the CPUs and devices of a machine hold, as plain structs.
//!
//! Registers are kept as KVM has them; the structures are the kernel's own and do not change (Linux
//! Documentation/virt/kvm/api.rst). They are written and read by the files beside this one.

use kvm_bindings::{
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use serde::{Deserialize, Serialize};

use crate::cpus::VcpuId;
use crate::crew::Life;
use crate::devices::ioapic::IoapicState;
use crate::hypercall::PanicText;

/// What a machine holds beside RAM.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// Its CPUs, in order.
    pub vcpus: Vec<VcpuState>,
    /// The one that the last run has ended on.
    pub stopped: VcpuId,
    /// Those that have asked for the snapshot, if the guest did: they wait for the answer.
    pub asked_by: Vec<VcpuId>,
    /// The clock that KVM shows to guests that ask it for one.
    pub clock: Option<kvm_clock_data>,
    /// The machine's monotonic time, in nanoseconds.
    pub monotonic_ns: u64,
    /// An address in each chunk of RAM that KVM was told of.
    pub told: Vec<u64>,
    /// The I/O APIC, where there are interrupt controllers.
    pub ioapic: Option<IoapicState>,
    /// Console output that waits for the end of its line.
    pub console: Vec<u8>,
    /// Whether the guest wants to be told of input.
    pub awaits_input: bool,
    /// What it has said of its own panic.
    pub panic_text: PanicText,
    /// The guest's arguments, each with a NUL behind it.
    pub arguments: Vec<u8>,
}

/// What a CPU holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct VcpuState {
    /// What it shows of itself.
    pub cpuid: Vec<kvm_cpuid_entry2>,
    /// General registers, RIP, RFLAGS.
    pub regs: kvm_regs,
    /// Segments, descriptor tables, control registers.
    pub sregs: kvm_sregs,
    /// Exceptions, interrupts and NMIs that are on their way to it.
    pub events: kvm_vcpu_events,
    /// x87, SSE, AVX and what else XSAVE has.
    pub xsave: Box<kvm_xsave>,
    /// Which of those are enabled: XCR0.
    pub xcrs: kvm_xcrs,
    /// DR0 to DR7.
    pub debug: kvm_debugregs,
    /// Model-specific registers, but for the time-stamp counter.
    pub msrs: Vec<kvm_msr_entry>,
    /// The time-stamp counter.
    pub tsc: u64,
    /// Its local APIC, where it has one.
    pub apic: Option<ApicState>,
    /// What it is about, in a machine of several.
    pub life: Option<Life>,
}

/// What a CPU with a local APIC holds beside.
#[derive(Debug, Serialize, Deserialize)]
pub struct ApicState {
    /// The controller's registers.
    pub registers: Box<kvm_lapic_state>,
    /// Whether it runs, sleeps, or waits to be started.
    pub mp_state: kvm_mp_state,
}
