//! The host's answer to every hypercall.
//!
//! One match, an arm a call; the work is done in the files beside this one. The contract, and what each call means,
//! is `shared-abi/src/hypercall.rs`; the guest's side is `guest-kernel/src/hypercall.rs`. A call that the contract has
//! and this file has not does not compile.

mod console;
mod cpus;
mod files;
mod journal;
mod last_words;
mod snapshot;
mod space;
mod time;

pub(crate) use files::largest_file;
pub use files::{Files, Grant, GrantMode, Limits};
pub(crate) use journal::Journal;
use journal::Replay;
pub use last_words::PanicText;
pub(crate) use time::elapsed_ns;

use kvm_bindings::kvm_regs;
use shared_abi::Gva;
pub(crate) use shared_abi::hypercall::Answer;
use shared_abi::hypercall::{ExitKind, Hypercall, Registers, encode_answer};
use shared_abi::ports;

use crate::error::Result;
use crate::guest_space::{GuestBuffer, GuestSpace};
use crate::machine::Machine;
use crate::next::{Next, StopReason};
use crate::observe::{ExitCounts, Mark, Observer};
use crate::vcpu::Vcpu;
use crate::vm::Vm;

/// What became of a call.
pub(crate) enum Outcome {
    /// The guest gets this answer and continues.
    Answer(Answer),
    /// The guest gets this answer, and the run is over for now.
    AnswerAndStop(Answer, StopReason),
    /// The run is over.
    Stop(StopReason),
}

/// What a call can use.
pub(crate) struct Context<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) vcpu: &'a mut Vcpu,
    pub(crate) observer: &'a mut (dyn Observer + 'a),
}

impl<'a> Context<'a> {
    /// The guest's memory as this vCPU sees it now.
    pub(crate) fn space(&self) -> Result<GuestSpace<'a>> {
        let machine: &'a Machine = self.machine;
        GuestSpace::of(self.vcpu, &machine.memory)
    }
}

/// Answers the hypercall whose registers `vcpu` holds. `observer` has counted the exits, and hears what was said.
///
/// # Errors
/// Only what the host cannot do. What is wrong with the call is an answer to the guest.
pub fn handle(vcpu: &mut Vcpu, machine: &Machine, observer: &mut impl Observer) -> Result<Next> {
    if !machine.has_hypercalls {
        let port = ports::HYPERCALL;
        return Ok(Next::Stop(StopReason::UnclaimedPort { port, size: 4, written: None }));
    }
    let registers = vcpu.hypercall_registers()?;
    if let Some(next) = repeated(vcpu, machine, &registers)? {
        return Ok(next);
    }
    let outcome = match Hypercall::decode(&registers) {
        Ok(call) => answer(call, &mut Context { machine, vcpu: &mut *vcpu, observer: &mut *observer })?,
        Err(error) => Outcome::Answer(Err(error)),
    };
    let (answer, next) = match outcome {
        Outcome::Answer(answer) => (answer, Next::Resume),
        Outcome::AnswerAndStop(answer, reason) => (answer, Next::Stop(reason)),
        Outcome::Stop(reason) => {
            observer.on_call(&registers, None);
            return Ok(Next::Stop(reason));
        }
    };
    observer.on_call(&registers, Some(answer));
    let (rax, rdi) = encode_answer(answer);
    vcpu.set_hypercall_answer(rax, rdi)?;
    let space = || GuestSpace::of(vcpu, &machine.memory);
    machine.journal().record(&registers, &answer, (rax, rdi), space);
    Ok(next)
}

/// What becomes of a call of a repeated run, which gets the answers of the first; `None` when the host must answer.
fn repeated(vcpu: &mut Vcpu, machine: &Machine, registers: &Registers) -> Result<Option<Next>> {
    let mut journal = machine.journal();
    if !journal.is_replaying() {
        return Ok(None);
    }
    match journal.next(registers, &GuestSpace::of(vcpu, &machine.memory)?) {
        Replay::Live => Ok(None),
        Replay::Answer(rax, rdi) => {
            vcpu.set_hypercall_answer(rax, rdi)?;
            Ok(Some(Next::Resume))
        }
        Replay::Diverged => Ok(Some(Next::Stop(StopReason::Interrupted))),
    }
}

impl Vm {
    /// Answers the call in `registers` as if the guest, which does not run, had just made it: to try calls that no guest of
    /// ours makes. The answer is in the vCPU's registers, which are read by ioctls from now on.
    ///
    /// # Errors
    /// As [`handle`].
    pub fn hypercall(&mut self, registers: &Registers) -> Result<Next> {
        let Self { vcpu, machine, .. } = self;
        vcpu.forgo_register_sync()?;
        let [rdi, rsi, rdx, r10, r8, r9] = registers.arguments;
        let rax = registers.number;
        vcpu.set_registers(&kvm_regs { rax, rdi, rsi, rdx, r10, r8, r9, ..vcpu.registers()? })?;
        handle(vcpu, machine, &mut ExitCounts::default())
    }
}

fn answer(call: Hypercall, context: &mut Context<'_>) -> Result<Outcome> {
    let machine = context.machine;
    let buffer = |gva: Gva, size: u64| GuestBuffer { gva, size };
    let answer = match call {
        Hypercall::Exit { code } => return Ok(Outcome::Stop(StopReason::Exited { code: exit_code(code) })),
        Hypercall::ConsoleWrite { text_gva, text_size } => {
            return console::write(context, buffer(text_gva, text_size));
        }
        Hypercall::ConsoleRead { buffer_gva, buffer_size, wait } => {
            return console::read(context, buffer(buffer_gva, buffer_size), wait);
        }
        Hypercall::ExitCount => Ok(context.observer.counts().total()),
        Hypercall::ExitCountOf { kind } => Ok(count_of(context.observer.counts(), kind)),
        Hypercall::Translate { gva, answer_gva } => space::translate(context, gva, answer_gva)?,
        Hypercall::MonotonicTime => time::monotonic(machine),
        Hypercall::WallTime => time::wall(),
        Hypercall::RandomBytes { buffer_gva, buffer_size } => {
            space::random_bytes(context, buffer(buffer_gva, buffer_size))?
        }
        Hypercall::Arguments { buffer_gva, buffer_size } => {
            space::arguments(context, buffer(buffer_gva, buffer_size))?
        }
        Hypercall::Log { level, target_gva, target_size, text_gva, text_size } => {
            let (target, text) = (buffer(target_gva, target_size), buffer(text_gva, text_size));
            console::log(context, level, target, text)?
        }
        Hypercall::OpenChannel { channel, ring_gva, ring_size } => {
            machine.open_channel(channel, buffer(ring_gva, ring_size), context.vcpu)?
        }
        Hypercall::MarkBegin { name_gva, name_size } => {
            console::mark_begin(context, buffer(name_gva, name_size))?
        }
        Hypercall::MarkEnd => {
            context.observer.on_mark(&Mark::End);
            Ok(0)
        }
        Hypercall::FileOpen { path_gva, path_size, flags } => {
            let space = context.space()?;
            machine.files().open(&space, buffer(path_gva, path_size), flags)
        }
        Hypercall::FileRead { handle, buffer_gva, buffer_size } => {
            let space = context.space()?;
            machine.files().read(&space, handle, buffer(buffer_gva, buffer_size))
        }
        Hypercall::FileWrite { handle, buffer_gva, buffer_size } => {
            let space = context.space()?;
            machine.files().write(&space, handle, buffer(buffer_gva, buffer_size))
        }
        Hypercall::FileSeek { handle, offset, origin } => machine.files().seek(handle, offset, origin),
        Hypercall::FileClose { handle } => machine.files().close(handle),
        Hypercall::FileStat { path_gva, path_size, answer_gva } => {
            let space = context.space()?;
            machine.files().stat(&space, buffer(path_gva, path_size), answer_gva)
        }
        Hypercall::FileRemove { path_gva, path_size } => {
            let space = context.space()?;
            machine.files().remove(&space, buffer(path_gva, path_size))
        }
        Hypercall::DirectoryRead { handle, buffer_gva, buffer_size } => {
            let space = context.space()?;
            machine.files().read_directory(&space, handle, buffer(buffer_gva, buffer_size))
        }
        Hypercall::StartCpu { cpu, entry_gva, stack_gva, argument } => {
            cpus::start(context, cpu, entry_gva, stack_gva, argument)?
        }
        Hypercall::Snapshot => return snapshot::ask(context),
        Hypercall::Identity => snapshot::identity(machine),
        Hypercall::Exception { frame_gva } => return last_words::exception(context, frame_gva),
        Hypercall::Panic { text_gva, text_size } => {
            return last_words::panic(context, buffer(text_gva, text_size));
        }
    };
    Ok(Outcome::Answer(answer))
}

/// Exit codes have 32 bits everywhere else; larger ones are too large there too.
fn exit_code(code: u64) -> u32 {
    u32::try_from(code).unwrap_or(u32::MAX)
}

fn count_of(exits: &ExitCounts, kind: ExitKind) -> u64 {
    match kind {
        ExitKind::PioIn => exits.pio_in,
        ExitKind::PioOut => exits.pio_out,
        ExitKind::MmioRead => exits.mmio_read,
        ExitKind::MmioWrite => exits.mmio_write,
        ExitKind::Hypercall => exits.hypercall,
        ExitKind::Halt => exits.halt,
        ExitKind::Interrupted => exits.interrupted,
        ExitKind::IoapicEoi => exits.ioapic_eoi,
    }
}
