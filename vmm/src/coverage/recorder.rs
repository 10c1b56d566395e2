//! The recorder: runs a machine and writes down which addresses it reaches.
//!
//! It is an observer that leaves its own exits out of the counts, which a guest may ask for; and it decides, when the guest
//! stops, whether that was a trap of its own. The traps of addresses that are known to be reached are never set again, by no
//! machine of the same image: in all, an address costs one exit.

use std::collections::{BTreeMap, BTreeSet};

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_INJECT_BP, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_SW_BP,
    kvm_guest_debug,
};
use shared_abi::{Gpa, Gva};

use super::{Coverage, Method};
use crate::debug::CpuState;
use crate::error::Result;
use crate::exit::{DebugEvent, Exit};
use crate::memory::GuestMemory;
use crate::next::{Next, StopReason};
use crate::observe::{ExitCounts, Observer};
use crate::page_walk::Walker;
use crate::report::RunReport;
use crate::vcpu::{Place, Vcpu};
use crate::vm::Vm;

/// Runs a machine and adds what it reaches to `coverage`.
pub(super) fn run(coverage: &Coverage, vm: &mut Vm) -> Result<RunReport> {
    let mut recorder = Recorder::prepare(coverage, vm)?;
    let stop = recorder.run(vm);
    // Whatever has happened: memory is left as the guest made it.
    recorder.traps.lift_all(vm.memory());
    vm.vcpus().try_for_each(|vcpu| vcpu.set_guest_debug(&kvm_guest_debug::default()))?;
    coverage.add(recorder.reached);
    Ok(vm.report(stop?, recorder.counts))
}

struct Recorder {
    method: Method,
    wanted: BTreeSet<Gva>,
    traps: Traps,
    reached: BTreeSet<Gva>,
    counts: ExitCounts,
    /// Where the guest was at the last exit.
    place: Option<Place>,
}

impl Recorder {
    fn prepare(coverage: &Coverage, vm: &Vm) -> Result<Self> {
        let (method, wanted) = (coverage.method, coverage.wanted());
        let traps = match method {
            Method::Breakpoints => Traps::set(&wanted, &CpuState::of(vm.vcpu())?, vm.memory()),
            Method::Steps => Traps::default(),
        };
        let control = match method {
            Method::Breakpoints => KVM_GUESTDBG_USE_SW_BP,
            Method::Steps => KVM_GUESTDBG_SINGLESTEP,
        };
        vm.vcpus().try_for_each(|vcpu| debug(vcpu, control))?;
        let mut recorder = Self {
            method,
            wanted: wanted.into_iter().collect(),
            traps,
            reached: BTreeSet::new(),
            counts: ExitCounts::default(),
            place: None,
        };
        if method == Method::Steps {
            // The first instruction: a step tells of the next one.
            recorder.reach(vm.cpu_state()?.rip());
        }
        Ok(recorder)
    }

    /// Runs the guest until it stops for a reason of its own.
    fn run(&mut self, vm: &mut Vm) -> Result<StopReason> {
        let mut session = vm.session()?;
        loop {
            let stop = session.resume(self)?;
            if !self.goes_on(&stop, session.vm())? {
                return Ok(stop);
            }
        }
    }

    fn reach(&mut self, gva: Gva) {
        if self.wanted.contains(&gva) {
            self.reached.insert(gva);
        }
    }

    /// Whether the guest stopped only because it is watched.
    fn goes_on(&mut self, stop: &StopReason, vm: &Vm) -> Result<bool> {
        let goes_on = match (self.method, stop) {
            (Method::Breakpoints, StopReason::EmulationFailure(_)) => self.is_trap(vm)?,
            (Method::Breakpoints, StopReason::Debug(event)) => {
                if !self.is_trap(vm)? && event.exception == DebugEvent::BREAKPOINT {
                    // The guest's own `int3`: it gets the exception that it would have got.
                    debug(vm.vcpu(), KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_INJECT_BP)?;
                }
                true
            }
            (Method::Steps, StopReason::Debug(event)) => {
                self.reach(event.pc);
                true
            }
            _ => false,
        };
        if !goes_on && matches!(stop, StopReason::EmulationFailure(_)) {
            self.counts.fatal += 1;
        }
        Ok(goes_on)
    }

    /// Whether the guest stopped at a trap, which is lifted then. RIP is at it, on a KVM that tells of `int3` as on one that
    /// cannot emulate it.
    fn is_trap(&mut self, vm: &Vm) -> Result<bool> {
        let rip = Gva(vm.vcpu().registers()?.rip);
        let is_trap = self.traps.lift(rip, vm.memory());
        if is_trap {
            self.reached.insert(rip);
        }
        Ok(is_trap)
    }
}

impl Observer for Recorder {
    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.place = place;
        // Whether these are the guest's own is known when it stops.
        if !matches!(exit, Exit::Debug(_) | Exit::EmulationFailure(_)) {
            self.counts.on_exit(exit, place);
        }
    }

    fn on_answer(&mut self, next: &Next) {
        // A step that ends in an exit may be told of by that exit alone; then the guest goes on from here.
        if let (Method::Steps, Next::Resume, Some(place)) = (self.method, next, self.place) {
            self.reach(place.rip);
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

fn debug(vcpu: &Vcpu, control: u32) -> Result<()> {
    vcpu.set_guest_debug(&kvm_guest_debug { control: KVM_GUESTDBG_ENABLE | control, ..Default::default() })
}

/// The addresses where `int3` stands, with what stood there.
#[derive(Debug, Default)]
struct Traps(BTreeMap<Gva, Trap>);

#[derive(Clone, Copy, Debug)]
struct Trap {
    gpa: Gpa,
    instead_of: u8,
}

/// `int3`.
const INT3: u8 = 0xCC;

impl Traps {
    /// Sets a trap at each address that the CPU can execute.
    fn set(addresses: &[Gva], cpu: &CpuState, memory: &GuestMemory) -> Self {
        let mut walker = cpu.page_tables().map(Walker::new);
        let mut translate = |gva: Gva| match &mut walker {
            Some(walker) => {
                let mapping = walker.walk(gva, |gpa| memory.read_u64(gpa).ok()).ok()?;
                mapping.executable.then_some(mapping.gpa)
            }
            None => Some(Gpa(gva.0)),
        };
        let mut traps = BTreeMap::new();
        for &gva in addresses {
            let Some(gpa) = translate(gva) else { continue };
            let mut byte = [0];
            if memory.read(gpa, &mut byte).is_ok() && memory.write(gpa, &[INT3]).is_ok() {
                let [instead_of] = byte;
                traps.insert(gva, Trap { gpa, instead_of });
            }
        }
        Self(traps)
    }

    /// Takes the trap at `gva` back; `false` when there is none.
    fn lift(&mut self, gva: Gva, memory: &GuestMemory) -> bool {
        self.0.remove(&gva).is_some_and(|trap| trap.lift(memory))
    }

    fn lift_all(&mut self, memory: &GuestMemory) {
        for trap in std::mem::take(&mut self.0).into_values() {
            trap.lift(memory);
        }
    }
}

impl Trap {
    /// Puts the byte back; `false` when the guest has overwritten the trap.
    fn lift(self, memory: &GuestMemory) -> bool {
        let mut byte = [0];
        let stands = memory.read(self.gpa, &mut byte).is_ok() && byte == [INT3];
        stands && memory.write(self.gpa, &[self.instead_of]).is_ok()
    }
}
