//! Starting a CPU: the direct way, in which the host sets the registers.
//!
//! On hardware a CPU that starts is in real mode and is told by an interrupt where (INIT and SIPI). Here it starts as the
//! first one did. Guest side: `guest-kernel/src/smp/`.

use shared_abi::{Gpa, Gva, HypercallError};
use x86_64::registers::control::EferFlags;

use super::Context;
use crate::boot::cpu_mode::LongMode;
use crate::error::Result;
use crate::hypercall::Answer;

/// Starts the vCPU `cpu` with the page tables of the caller.
pub(super) fn start(
    context: &Context<'_>,
    cpu: u64,
    entry_gva: Gva,
    stack_gva: Gva,
    argument: u64,
) -> Result<Answer> {
    let Some(crew) = &context.machine.crew else {
        let is_caller = cpu == 0;
        return Ok(Err(if is_caller { HypercallError::AlreadyExists } else { HypercallError::NotFound }));
    };
    let special = context.vcpu.special_registers()?;
    if special.efer & EferFlags::LONG_MODE_ACTIVE.bits() == 0 {
        return Ok(Err(HypercallError::BadArgument));
    }
    // Without the low bits: they mean caching, or a process-context identifier that the started CPU has not enabled.
    let page_tables_gpa = Gpa(special.cr3 & !0xFFF);
    let mode = LongMode { entry_gva, page_tables_gpa, stack_gva, argument };
    let started = crew.start(context.vcpu.id(), cpu, mode, &context.machine.stop);
    Ok(started.map(|()| 0))
}
