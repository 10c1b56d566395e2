//! Bystanders: what the other vCPUs were about when one has ended the run.
//!
//! One waits for a lock that the dead one holds, another has written what it died of: with several CPUs half of the answer
//! is where the others were. They stand as they were recalled, so their registers can be read.

use std::fmt;

use serde::Serialize;

use crate::cpus::VcpuId;
use crate::crew::Life;
use crate::debug::backtrace::Backtrace;
use crate::debug::{CpuState, Symbols};
use crate::report::RunReport;
use crate::vm::Vm;

/// A vCPU that the run did not end on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bystander {
    /// Which.
    pub vcpu: VcpuId,
    /// What it was about.
    pub doing: Doing,
}

/// What a vCPU was about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    /// Nothing yet: nobody has started it.
    Unstarted,
    /// Nothing any more: it has executed HLT with interrupts off.
    Halted,
    /// Nothing just now: it has executed HLT and waits for an interrupt.
    Waiting,
    /// It ran, here: `FUNCTION at FILE:LINE`, or an address.
    Running(String),
}

/// All vCPUs but the one that `report` names, in order.
pub(crate) fn of(vm: &Vm, report: &RunReport, symbols: &Symbols) -> Vec<Bystander> {
    let Some(crew) = &vm.machine().crew else { return Vec::new() };
    let others = vm.vcpus().filter(|vcpu| Some(vcpu.id()) != report.vcpu);
    others
        .map(|vcpu| {
            let doing = match crew.life(vcpu) {
                Ok(Life::Unstarted) => Doing::Unstarted,
                Ok(Life::Halted { interrupts_enabled: false }) => Doing::Halted,
                Ok(Life::Halted { interrupts_enabled: true }) => Doing::Waiting,
                Err(error) => Doing::Running(error.to_string()),
                Ok(Life::Runs) => Doing::Running(match CpuState::of(vcpu) {
                    Ok(state) => place(vm, &state, symbols),
                    Err(error) => error.to_string(),
                }),
            };
            Bystander { vcpu: vcpu.id(), doing }
        })
        .collect()
}

/// Where a CPU is: its innermost function that is not of Rust's library.
fn place(vm: &Vm, state: &CpuState, symbols: &Symbols) -> String {
    let backtrace = Backtrace::unwind(state, vm.memory(), symbols);
    let Some(frame) = backtrace.culprit() else { return state.rip().to_string() };
    let function = frame.function.clone().unwrap_or_else(|| frame.pc.to_string());
    match frame.place() {
        Some(place) => format!("{function} at {place}"),
        None => function,
    }
}

impl fmt::Display for Bystander {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.doing {
            Doing::Unstarted => write!(f, "{} was never started", self.vcpu),
            Doing::Halted => write!(f, "{} had halted", self.vcpu),
            Doing::Waiting => write!(f, "{} waited for an interrupt", self.vcpu),
            Doing::Running(place) => write!(f, "{} was in {place}", self.vcpu),
        }
    }
}
