//! Starting a CPU: what it needs before its first instruction, and what its first instructions are.
//!
//! A CPU needs a stack, a second one for double faults, and a TSS that says where that is. All three are made once and
//! kept: a CPU may be started again. Then it is told where to begin, in one of two [ways](Way), and arrives here:
//!
//! ```text
//! Way::Direct   StartCpu ──► the VMM sets the registers ──────────────┐
//! Way::Sipi     INIT, SIPI ──► real mode ──► trampoline ──► 64 bits ──┴──► arrive ──► welcome ──► work::serve
//! ```

use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use shared_abi::{Gva, HypercallError};

use super::{PerCpu, ipi, relax, shootdown, trampoline, work};
use crate::cpu::tss::Tss;
use crate::cpu::{CpuId, MAX_CPUS, flags, gdt};
use crate::hypercall::{self, Hypercall};
use crate::memory::paging::MapError;
use crate::memory::stack::Stack;
use crate::sync::Once;

/// How a CPU is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The VMM sets its registers.
    Direct,
    /// By the interrupts INIT and SIPI, as on hardware.
    Sipi,
}

impl Way {
    /// The way of this machine: that of hardware, where there are local APICs.
    #[must_use]
    pub fn of_this_machine() -> Self {
        if has_controllers() { Self::Sipi } else { Self::Direct }
    }
}

/// Whether the machine has local APICs: CPUs can interrupt one another, and a halted one can be woken.
pub(super) fn has_controllers() -> bool {
    crate::boot_info().interrupts != 0
}

/// Why a CPU does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The machine has no such CPU.
    NoSuchCpu(CpuId),
    /// There is no memory for its stacks.
    NoStack(MapError),
    /// The host does not start it.
    Refused(HypercallError),
    /// It was sent INIT and SIPI, and has not come.
    NoAnswer(CpuId),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchCpu(cpu) => {
                write!(f, "there is no {cpu}: this machine has {}, --cpus gives more", super::count())
            }
            Self::NoStack(error) => write!(f, "there is no stack for a CPU: {error}"),
            Self::Refused(error) => write!(f, "the host does not start the CPU: {error:?}"),
            Self::NoAnswer(cpu) => write!(f, "{cpu} was sent INIT and SIPI, and has not come"),
        }
    }
}

/// What a CPU runs on.
struct Parts {
    stack: Stack,
    tss: &'static Tss,
}

static PARTS: PerCpu<Once<Parts>> = PerCpu::new([const { Once::new() }; MAX_CPUS]);
/// Whether a CPU has come.
static HAS_COME: PerCpu<AtomicBool> = PerCpu::new([const { AtomicBool::new(false) }; MAX_CPUS]);

/// Bytes of a CPU's stack, and of those for double faults, NMIs and machine checks.
const STACK_SIZE: u64 = 32 << 10;
const FAULT_STACK_SIZE: u64 = 8 << 10;

impl Parts {
    fn new() -> Result<Self, MapError> {
        let stack = Stack::allocate(STACK_SIZE)?;
        let mut ends = [Gva(0); 3];
        for end in &mut ends {
            *end = Box::leak(Box::new(Stack::allocate(FAULT_STACK_SIZE)?)).end();
        }
        let tss = Box::leak(Box::new(Tss::with_stacks(ends)));
        Ok(Self { stack, tss })
    }
}

/// Starts `cpu`, which does not run, and has it serve its queue of [work](super::work).
///
/// # Errors
/// [`StartError`].
pub(super) fn start(cpu: CpuId, way: Way) -> Result<(), StartError> {
    if cpu.number() >= super::count() {
        return Err(StartError::NoSuchCpu(cpu));
    }
    let parts = PARTS.of(cpu).try_call_once(Parts::new).map_err(StartError::NoStack)?;
    gdt::set_tss(cpu, parts.tss);
    shootdown::get_ready();
    if has_controllers() {
        ipi::get_ready();
    }
    let (entry_gva, stack_gva) = (arrive_gva(), parts.stack.end());
    match way {
        Way::Direct => start_directly(cpu, entry_gva, stack_gva),
        Way::Sipi => {
            HAS_COME.of(cpu).store(false, Ordering::Release);
            trampoline::start(cpu, entry_gva, stack_gva, || HAS_COME.of(cpu).load(Ordering::Acquire))
        }
    }
}

/// Has the VMM set its registers. A CPU that is about to halt still runs for the host: it is asked again.
fn start_directly(cpu: CpuId, entry_gva: Gva, stack_gva: Gva) -> Result<(), StartError> {
    let number = cpu.number() as u64;
    let call = Hypercall::StartCpu { cpu: number, entry_gva, stack_gva, argument: number };
    loop {
        match hypercall::call(call) {
            Ok(_) => return Ok(()),
            Err(HypercallError::AlreadyExists) => relax(),
            Err(error) => return Err(StartError::Refused(error)),
        }
    }
}

/// Where a CPU begins in 64-bit mode.
fn arrive_gva() -> Gva {
    #[cfg(target_os = "none")]
    return Gva(arrive as *const () as u64);
    #[cfg(not(target_os = "none"))]
    panic!("{}", crate::cpu::NOT_IN_A_MACHINE)
}

/// The first 64-bit instructions of a CPU. RDI holds its number, RSP the end of its stack; there are no tables yet.
///
/// A CPU comes here that has executed nothing of this kernel, or had halted for good.
///
/// # Safety
/// Only a CPU that is started may come here, on a stack of its own.
#[cfg(target_os = "none")]
#[unsafe(naked)]
unsafe extern "C" fn arrive() -> ! {
    core::arch::naked_asm!(
        "xor ebp, ebp", // the chain of frame pointers ends here, as in `_start`
        "call {welcome}",
        "ud2",
        welcome = sym welcome,
    )
}

/// Readies this CPU for exceptions and interrupts, and has it work.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "only a CPU that is started comes here"))]
extern "C" fn welcome(number: u64) -> ! {
    let cpu = CpuId::new(number as usize).expect("a CPU is started by its number");
    #[cfg(target_os = "none")]
    crate::cpu::load_tables(cpu);
    shootdown::come_online();
    if has_controllers() {
        ipi::listen();
        flags::restore_interrupts(flags::Interrupts::Enabled);
    }
    HAS_COME.of(cpu).store(true, Ordering::Release);
    work::serve(cpu)
}
