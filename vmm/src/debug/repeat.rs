//! Running a guest once more, to see the death that KVM has wiped away.
//!
//! kvm_amd resets a vCPU that shuts down (`shutdown_interception` in Linux arch/x86/kvm/svm/svm.c): RIP is 0xfff0, as
//! after power-on. Memory is still there, the registers are not. But a guest of one vCPU without interrupts does the
//! same again when it is told the same, and the [journal](crate::hypercall) knows what it was told. So a second machine
//! is made of the same image, and its guest runs:
//!
//! 1. to the last exit before its death, at full speed: the first run's exits are counted;
//! 2. from there step by step, keeping the registers of each, until it dies again.
//!
//! It says what happens when it does not: the guest asks something else, or runs too long. Its console goes nowhere, and
//! it has no directory.

use std::path::Path;
use std::time::Duration;

use iced_x86::{FlowControl, Mnemonic};
use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};

use crate::debug::{CpuState, instruction};
use crate::machine::Machine;
use crate::next::{Next, StopReason};
use crate::observe::ExitCounts;
use crate::run_loop;
use crate::stop::Watchdog;
use crate::vcpu::Vcpu;

/// What a diagnosis says that rests on a repeated run.
pub(crate) const REMARK: &str =
    "this host's KVM loses the registers of a guest that dies; the run was repeated to see this";

/// How long a repeated run may take, where steps are slow.
const TIME_LIMIT: Duration = Duration::from_secs(6);
/// How many steps of it: they take two or three seconds where KVM is the hardware's.
const MAX_STEPS: u32 = 1_000_000;

/// Whether this host's KVM is one that loses registers.
pub(crate) fn may_be_needed() -> bool {
    Path::new("/sys/module/kvm_amd").exists()
}

/// Runs the guest to the last of `exits`, which was its death, and gives the registers before it.
pub(crate) fn run_to_death(vcpu: &mut Vcpu, machine: &Machine, exits: u64) -> Result<CpuState, String> {
    let host_failed = |error: crate::Error| error.to_string();
    let _attached = vcpu.attach(&machine.stop).map_err(host_failed)?;
    let _watchdog = Watchdog::start(machine.stop.clone(), TIME_LIMIT).map_err(host_failed)?;
    let mut counts = ExitCounts::default();
    while counts.total() - counts.interrupted + 1 < exits {
        match run_loop::turn(vcpu, machine, &mut counts).map_err(host_failed)? {
            Next::Resume | Next::Stand => {}
            Next::Stop(reason) => return Err(other_end(machine, &reason)),
        }
    }
    let single_step = kvm_guest_debug {
        control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
        ..kvm_guest_debug::default()
    };
    vcpu.set_guest_debug(&single_step).map_err(host_failed)?;
    let mut state = CpuState::of(vcpu).map_err(host_failed)?;
    for _ in 0..MAX_STEPS {
        let may_change = may_change_special_registers(&state, machine);
        match run_loop::turn(vcpu, machine, &mut counts).map_err(host_failed)? {
            Next::Stop(StopReason::TripleFault) => return Ok(state),
            Next::Resume | Next::Stand | Next::Stop(StopReason::Debug(_)) => {}
            Next::Stop(reason) => return Err(other_end(machine, &reason)),
        }
        if machine.stop.requested().is_some() {
            return Err(too_long());
        }
        state.general = vcpu.registers_after_exit().map_err(host_failed)?;
        if may_change {
            state.special = vcpu.special_registers().map_err(host_failed)?;
        }
    }
    Err(too_long())
}

/// Whether the instruction at RIP may change more than general registers, which come along with every exit: reading the
/// others takes as long as a step.
fn may_change_special_registers(state: &CpuState, machine: &Machine) -> bool {
    let bytes = instruction::bytes_at(&state.space(&machine.memory), instruction::linear_rip(state));
    let Some(decoded) = instruction::decode(state.rip(), &bytes, instruction::bits(&state.special)) else {
        return true;
    };
    let is_near = matches!(
        decoded.flow_control(),
        FlowControl::Next | FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
    ) || matches!(decoded.mnemonic(), Mnemonic::Call | Mnemonic::Ret);
    let loads_segment = decoded.op0_register().is_segment_register();
    let loads_base = matches!(decoded.mnemonic(), Mnemonic::Wrfsbase | Mnemonic::Wrgsbase);
    !is_near || decoded.is_privileged() || loads_segment || loads_base
}

fn other_end(machine: &Machine, reason: &StopReason) -> String {
    if machine.journal().has_diverged() {
        return "the run was repeated, but the guest asked for something else than the first time".to_owned();
    }
    match reason {
        StopReason::Interrupted if machine.stop.requested().is_none() => "the run was interrupted".to_owned(),
        StopReason::Interrupted | StopReason::TimedOut { .. } => too_long(),
        reason => format!("the run was repeated, but ended otherwise: {reason}"),
    }
}

fn too_long() -> String {
    format!(
        "the run was repeated, but what the guest did after its last exit takes more than {TIME_LIMIT:?} step by step"
    )
}
