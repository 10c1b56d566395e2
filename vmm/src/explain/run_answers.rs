//! `RunAnswers`: what a run did: the way in and out, the first print, the result.

use serde::Serialize;
use shared_abi::{Gva, ports};

use super::answers::Answers;
use super::watch::{SeenExit, Watch, Way};
use super::words::Hex;
use crate::cpus::VcpuId;
use crate::error::Result;
use crate::exit::PortIo;
use crate::next::StopReason;
use crate::observe::{ExitCounts, Observer};
use crate::origin::Origin;
use crate::report::RunReport;
use crate::vcpu::Vcpu;
use crate::vm::Vm;

/// What a run did.
#[derive(Clone, Debug, Serialize)]
pub struct RunAnswers {
    /// The call of KVM_RUN, that control goes into the guest by.
    pub entered_at: Option<Origin>,
    /// The first line behind it that looks why the guest came out.
    pub read_at: Option<Origin>,
    /// The line of the run loop that control comes back to.
    pub returned_to: Option<Origin>,
    /// All exits, by kind.
    pub exits: ExitCounts,
    /// Their number.
    pub total_exits: u64,
    /// The first print; `None` when nothing was printed at an exit.
    pub print: Option<PrintAnswer>,
    /// What `kvm_run` says of the last exit, when that was port I/O.
    pub last_port_io: Option<PortIo>,
    /// Where the guest left its result.
    pub result: ResultAnswer,
}

/// How the guest printed.
#[derive(Clone, Debug, Serialize)]
pub struct PrintAnswer {
    /// The first exit that printed.
    pub first: SeenExit,
    /// The function that made it, and its source, when the image tells.
    pub by: Option<String>,
    /// The line that put a device there; `None` for a hypercall.
    pub device_attached_at: Option<Origin>,
    /// How many exits printed.
    pub exits: u64,
    /// How many bytes they printed.
    pub bytes: u64,
    /// How many bytes came out without an exit of their own, such as through a ring.
    pub bytes_without_exit: u64,
}

/// Where the guest left its result, and how the host reads it.
#[derive(Clone, Debug, Serialize)]
pub struct ResultAnswer {
    /// How it ended, in words.
    pub end: String,
    /// The vCPU that it ended on, where the machine has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<VcpuId>,
    /// The guest's exit code, when it chose one.
    pub code: Option<u32>,
    /// What `vmm run` ends with.
    pub process_exit_code: u8,
    /// The last exit.
    pub last_exit: Option<SeenExit>,
    /// The function that made it, and its source, when the image tells.
    pub by: Option<String>,
    /// The line that put a device there.
    pub device_attached_at: Option<Origin>,
}

/// Runs the machine to its end and answers all questions.
///
/// # Errors
/// What the host could not do. Whatever the guest does is in both results.
pub fn run(vm: &mut Vm) -> Result<(Answers, RunReport)> {
    run_with(vm, &mut ExitCounts::default())
}

/// Runs as [`run`] does, with somebody else watching too.
///
/// # Errors
/// As [`run`].
pub fn run_with(vm: &mut Vm, observer: &mut impl Observer) -> Result<(Answers, RunReport)> {
    let mut answers = Answers::of(vm)?;
    let mappings = vm.vcpus().map(Vcpu::run_mapping);
    let printed = vm.machine().console().printed();
    let before = printed.bytes();
    let mut both = (Watch::new(printed.clone(), mappings), observer);
    let report = vm.run_observed(&mut both)?;
    let all = printed.bytes() - before;
    answers.run = Some(run_answers(vm, &both.0, &report, all));
    Ok((answers, report))
}

fn run_answers(vm: &mut Vm, watch: &Watch, report: &RunReport, printed: u64) -> RunAnswers {
    let crossing = vm.vcpu().crossing();
    let last_port_io = vm.vcpu_mut().last_port_io();
    let vm = &*vm;
    let print = watch.first_print.as_ref().map(|first| PrintAnswer {
        first: first.clone(),
        by: by(vm, first),
        device_attached_at: device(vm, first),
        exits: watch.prints,
        bytes: watch.printed_bytes,
        bytes_without_exit: printed.saturating_sub(watch.printed_bytes),
    });
    let last = watch.last(vm.vcpu().id());
    let code = match report.stop {
        StopReason::Exited { code } => Some(code),
        _ => None,
    };
    RunAnswers {
        entered_at: crossing.map(|crossing| crossing.entered),
        read_at: crossing.map(|crossing| crossing.read),
        returned_to: crossing.map(|crossing| crossing.returned),
        exits: *watch.counts(),
        total_exits: watch.counts().total(),
        print,
        last_port_io,
        result: ResultAnswer {
            end: report.stop.to_string(),
            vcpu: report.vcpu,
            code,
            process_exit_code: report.stop.process_exit_code(),
            last_exit: last.cloned(),
            by: last.and_then(|exit| by(vm, exit)),
            device_attached_at: last.and_then(|exit| device(vm, exit)),
        },
    }
}

/// The function that an exit left from. KVMs differ in whether RIP is at the instruction or behind it.
fn by(vm: &Vm, exit: &SeenExit) -> Option<String> {
    let Hex(rip) = exit.rip?;
    let at = if is_at_port_instruction(vm, rip) { rip } else { rip.wrapping_sub(1) };
    vm.symbols().frames(Gva(at)).first().map(ToString::to_string)
}

/// Whether the instruction at `rip` is an IN or OUT, with or without prefixes.
fn is_at_port_instruction(vm: &Vm, rip: u64) -> bool {
    let Ok(cpu) = vm.cpu_state() else { return false };
    let space = cpu.space(vm.memory());
    let byte = |offset: u64| {
        let mapping = space.translate(Gva(rip.wrapping_add(offset)))?;
        let mut byte = [0];
        vm.memory().read(mapping.gpa, &mut byte).ok()?;
        Some(byte[0])
    };
    let opcode = (0..3).filter_map(byte).find(|byte| !matches!(byte, 0x66 | 0xF2 | 0xF3));
    matches!(opcode, Some(0x6C..=0x6F | 0xE4..=0xE7 | 0xEC..=0xEF))
}

/// The line that attached the device which an exit reached.
fn device(vm: &Vm, exit: &SeenExit) -> Option<Origin> {
    match exit.way {
        Way::Port { port, .. } => vm.machine().pio.attached_at(port),
        Way::Mmio { gpa: Hex(gpa), .. } => {
            let mut places = vm.machine().mmio.places();
            let place =
                places.find(|(start, size, _)| gpa.checked_sub(start.0).is_some_and(|offset| offset < *size));
            place.map(|(_, _, origin)| origin)
        }
        Way::Hypercall { .. } | Way::Other { .. } => None,
    }
}

impl RunAnswers {
    /// Whether the last exit was made at the exit port.
    #[must_use]
    pub fn ended_at_exit_port(&self) -> bool {
        let way = self.result.last_exit.as_ref().map(|exit| &exit.way);
        matches!(way, Some(Way::Port { port, is_out: true, .. }) if *port == ports::EXIT)
    }
}
