//! The heart: enter the guest, see why it came out, answer, repeat.

use crate::error::Result;
use crate::exit::Exit;
use crate::hypercall;
use crate::machine::Machine;
use crate::next::{Next, StopReason};
use crate::observe::Observer;
use crate::vcpu::{Exited, RESET_RIP, Vcpu};

/// Runs `vcpu` until something ends the run: `None` when that was another vCPU. `observer` is told of every exit and can
/// change none.
///
/// # Errors
/// Only what the host cannot do, such as writing the console's output.
pub fn run(vcpu: &mut Vcpu, machine: &Machine, observer: &mut impl Observer) -> Result<Option<StopReason>> {
    loop {
        match turn(vcpu, machine, observer)? {
            Next::Resume => {}
            Next::Stop(reason) => return Ok(Some(reason)),
            Next::Stand => return Ok(None),
        }
    }
}

/// Runs `vcpu` to its next exit, and answers that.
///
/// # Errors
/// As [`run`].
pub fn turn(vcpu: &mut Vcpu, machine: &Machine, observer: &mut impl Observer) -> Result<Next> {
    observer.on_entry();
    // CROSSING 4, guest -> host: KVM_RUN has returned; the guest is frozen, and the host looks why.
    let Exited { exit, place } = vcpu.enter_guest();
    observer.on_exit(&exit, place);
    let next = match exit {
        Exit::Hypercall => hypercall::handle(vcpu, machine, observer)?,
        Exit::PioIn { port, size, data } => machine.pio.read(port, size, data)?,
        Exit::PioOut { port, size, data } => machine.pio.write(port, size, data)?,
        Exit::MmioRead { gpa, data } => machine.read_mmio(gpa, data)?,
        Exit::MmioWrite { gpa, data } => machine.write_mmio(gpa, data)?,
        Exit::Halt => Next::Stop(StopReason::Halted { interrupts_enabled: vcpu.interrupts_enabled() }),
        Exit::TripleFault => shut_down(vcpu, machine)?,
        Exit::Interrupted => interrupted(vcpu, machine),
        Exit::IoapicEoi { vector } => machine.end_interrupt(vector)?,
        Exit::Debug(event) => Next::Stop(StopReason::Debug(event)),
        Exit::EmulationFailure(bytes) => machine.retry_or(StopReason::EmulationFailure(bytes))?,
        Exit::InternalError { suberror } => machine.retry_or(StopReason::InternalError { suberror })?,
        Exit::EntryFailed { hardware_reason } => Next::Stop(StopReason::EntryFailed { hardware_reason }),
        Exit::RunFailed(errno) => Next::Stop(StopReason::RunFailed { errno }),
        Exit::Unknown(exit_reason) => Next::Stop(StopReason::Unknown { exit_reason }),
    };
    observer.on_answer(&next);
    Ok(next)
}

/// No handler could be called. Its frame may go to RAM that KVM has not been told of, so once all is told the guest tries again:
/// the registers are those before the exception. Where KVM has reset them, there is nothing to try.
fn shut_down(vcpu: &Vcpu, machine: &Machine) -> Result<Next> {
    if vcpu.rip() == Some(RESET_RIP) {
        return Ok(Next::Stop(StopReason::TripleFault));
    }
    machine.retry_or(StopReason::TripleFault)
}

/// A signal brought the vCPU out: another vCPU's end or request, somebody's wish to stop or pause, or one of the many signals that
/// mean nothing to us.
fn interrupted(vcpu: &mut Vcpu, machine: &Machine) -> Next {
    // First ready for the next kick, then the look: a kick in between is not lost.
    vcpu.clear_interruption();
    let is_asked = machine.crew.as_ref().is_some_and(|crew| crew.is_asked(vcpu.id()));
    if machine.stop.is_recalled() || is_asked {
        return Next::Stand;
    }
    let pause = || machine.stop.take_pause().then_some(StopReason::Paused);
    machine.stop_reason().or_else(pause).map_or(Next::Resume, Next::Stop)
}
