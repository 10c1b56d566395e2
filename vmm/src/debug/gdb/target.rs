//! `Guest`: the stopped machine as gdb sees it. Each vCPU is a thread; today there is one.

use std::cell::OnceCell;
use std::sync::Arc;

use gdbstub::arch::Registers;
use gdbstub::common::Tid;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{MultiThreadBase, MultiThreadResumeOps};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::BreakpointsOps;
use gdbstub::target::ext::monitor_cmd::MonitorCmdOps;
use gdbstub::target::{Target, TargetError, TargetResult};
use shared_abi::Gva;

use super::abilities::{Abilities, Ability};
use super::actions::Action;
use super::breakpoints::Planted;
use super::debug_registers::DebugRegisters;
use super::memory::View;
use super::registers::{RegisterFile, RegisterId, X86};
use super::steps::Steps;
use crate::debug::Symbols;
use crate::error::{Error, Result};
use crate::guest_space::GuestSpace;
use crate::memory::GuestMemory;
use crate::next::StopReason;
use crate::session::Session;
use crate::vcpu::Vcpu;

/// The thread that is the first vCPU.
pub(super) const FIRST_VCPU: Tid = Tid::MIN;

/// The machine under a debugger.
pub(super) struct Guest<'a> {
    pub(super) session: Session<'a>,
    /// RAM.
    pub(super) memory: Arc<GuestMemory>,
    symbols: OnceCell<Symbols>,
    /// Software breakpoints.
    pub(super) planted: Planted,
    /// Hardware breakpoints and watchpoints.
    pub(super) hardware: DebugRegisters,
    abilities: OnceCell<Abilities>,
    /// What the vCPU does when the guest is resumed.
    pub(super) action: Action,
    /// Counts exits, and ends steps that end with an exit.
    pub(super) steps: Steps,
    /// An `int3` of the guest's own that it has not been given yet.
    pub(super) own_int3: Option<Gva>,
    /// Why the run would have ended without a debugger.
    pub(super) end: Option<StopReason>,
    /// Sentences for the debugger's console, when it next takes some.
    pub(super) sentences: Vec<&'static str>,
    tell: &'a dyn Fn(&str),
}

impl<'a> Guest<'a> {
    /// A machine with nothing planted in it. `tell` shows sentences to who started the VMM.
    pub(super) fn new(session: Session<'a>, tell: &'a dyn Fn(&str)) -> Self {
        let machine = &session.vm().machine;
        let (memory, stop) = (Arc::clone(&machine.memory), machine.stop.clone());
        Self {
            session,
            memory,
            symbols: OnceCell::new(),
            planted: Planted::default(),
            hardware: DebugRegisters::default(),
            abilities: OnceCell::new(),
            action: Action::Continue,
            steps: Steps::new(stop),
            own_int3: None,
            end: None,
            sentences: Vec::new(),
            tell,
        }
    }

    /// The vCPU, which stands still.
    pub(super) fn vcpu(&self) -> &Vcpu {
        self.session.vm().vcpu()
    }

    /// The reason to stop that somebody outside has given, if any.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        self.session.vm().machine.stop_reason()
    }

    /// Memory as the vCPU sees it.
    pub(super) fn space(&self) -> Result<GuestSpace<'_>> {
        GuestSpace::of(self.vcpu(), &self.memory)
    }

    fn view(&mut self) -> Result<View<'_>> {
        let space = GuestSpace::of(self.session.vm().vcpu(), &self.memory)?;
        Ok(View { space, planted: &mut self.planted })
    }

    /// The registers that a debugger sees: the vCPU's; or those of what was interrupted, when the guest's own handler
    /// has told the host of an exception.
    fn registers(&self) -> Result<RegisterFile> {
        let file = RegisterFile::of(self.vcpu())?;
        Ok(match &self.end {
            Some(StopReason::Exception(frame)) => file.interrupted(frame),
            _ => file,
        })
    }

    /// Where a debugger sees the vCPU.
    pub(super) fn shown_rip(&self) -> Result<Gva> {
        Ok(Gva(self.registers()?.pc()))
    }

    /// Where the vCPU is.
    pub(super) fn rip(&self) -> Result<Gva> {
        self.vcpu().registers().map(|registers| Gva(registers.rip))
    }

    /// The byte at `gva`, as the guest sees it.
    pub(super) fn byte_at(&self, gva: Gva) -> Option<u8> {
        let mut byte = [0];
        let mapping = self.space().ok()?.translate(gva)?;
        self.memory.read(mapping.gpa, &mut byte).ok()?;
        Some(byte[0])
    }

    /// What the image tells about addresses; read when it is first asked for.
    pub(super) fn symbols(&self) -> &Symbols {
        self.symbols.get_or_init(|| self.session.vm().symbols())
    }

    /// What this host's KVM can do; tried when it is first asked for.
    pub(super) fn abilities(&self) -> Result<Abilities> {
        if let Some(known) = self.abilities.get() {
            return Ok(*known);
        }
        let found = Abilities::find_out()?;
        Ok(*self.abilities.get_or_init(|| found))
    }

    /// Whether this host's KVM can do this; if not, it is said.
    pub(super) fn has(&mut self, ability: Ability) -> bool {
        // Where no second machine can be built, nothing is known, and nothing promised.
        let has = self.abilities().is_ok_and(|abilities| abilities.has(ability));
        if !has {
            self.refuse(ability.missing());
        }
        has
    }

    /// Says why something is refused: at once to who started the VMM, and on the debugger's console when it takes
    /// something next.
    pub(super) fn refuse(&mut self, why: &'static str) {
        (self.tell)(why);
        if !self.sentences.contains(&why) {
            self.sentences.push(why);
        }
    }
}

/// What the host could not do ends the session.
impl From<Error> for TargetError<Error> {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// There is no such vCPU.
fn known(tid: Tid) -> std::result::Result<(), TargetError<Error>> {
    if tid == FIRST_VCPU { Ok(()) } else { Err(TargetError::Errno(libc::ESRCH as u8)) }
}

impl Target for Guest<'_> {
    type Arch = X86;
    type Error = Error;

    fn base_ops(&mut self) -> BaseOps<'_, X86, Error> {
        BaseOps::MultiThread(self)
    }

    fn guard_rail_implicit_sw_breakpoints(&self) -> bool {
        // Software breakpoints are ours.
        true
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Guest<'_> {
    fn read_registers(&mut self, file: &mut RegisterFile, tid: Tid) -> TargetResult<(), Self> {
        known(tid)?;
        *file = self.registers()?;
        Ok(())
    }

    fn write_registers(&mut self, file: &RegisterFile, tid: Tid) -> TargetResult<(), Self> {
        known(tid)?;
        let before = RegisterFile::of(self.vcpu())?;
        let mut after = before;
        after.take_over(file);
        self.set(&after, &before)
    }

    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }

    fn read_addrs(&mut self, gva: u64, bytes: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        known(tid)?;
        // Behind the last address comes nothing, so a range that reaches there has no end to count to.
        let is_range = gva.checked_add(bytes.len() as u64).is_some();
        match self.view()?.read(Gva(gva), bytes) {
            count if is_range && (count > 0 || bytes.is_empty()) => Ok(count),
            _ => Err(TargetError::Errno(libc::EFAULT as u8)),
        }
    }

    fn write_addrs(&mut self, gva: u64, bytes: &[u8], tid: Tid) -> TargetResult<(), Self> {
        known(tid)?;
        match self.view()?.write(Gva(gva), bytes) {
            true => Ok(()),
            false => Err(TargetError::Errno(libc::EFAULT as u8)),
        }
    }

    fn list_active_threads(&mut self, is_active: &mut dyn FnMut(Tid)) -> Result<()> {
        is_active(FIRST_VCPU);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleRegisterAccess<Tid> for Guest<'_> {
    fn read_register(&mut self, tid: Tid, id: RegisterId, buffer: &mut [u8]) -> TargetResult<usize, Self> {
        known(tid)?;
        Ok(self.registers()?.read(id, buffer))
    }

    fn write_register(&mut self, tid: Tid, id: RegisterId, bytes: &[u8]) -> TargetResult<(), Self> {
        known(tid)?;
        let before = RegisterFile::of(self.vcpu())?;
        let mut after = before;
        if !after.write(id, bytes) {
            return Err(TargetError::Errno(libc::EINVAL as u8));
        }
        self.set(&after, &before)
    }
}

impl Guest<'_> {
    fn set(&self, after: &RegisterFile, before: &RegisterFile) -> TargetResult<(), Self> {
        if self.end.is_some() {
            // Nothing comes of them any more.
            return Err(TargetError::Errno(libc::EPERM as u8));
        }
        match after.set(self.vcpu(), before)? {
            true => Ok(()),
            false => Err(TargetError::Errno(libc::EINVAL as u8)),
        }
    }
}
