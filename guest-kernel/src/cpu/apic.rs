//! The local APIC: each CPU's own interrupt controller, with its timer.
//!
//! The same registers are reached in two ways. As an *xAPIC* they are a page of memory, 16 bytes apart, and each access
//! is a load or store that the hypervisor must take apart. As an *x2APIC* they are model-specific registers, numbered by
//! the same offsets divided by 16: cheaper, and ids have 32 bits. [`enable`] takes the second where CPUID has it.
//!
//! ```text
//! offset  MSR    register                          offset  MSR    register
//! 0x020   0x802  ID                                0x320   0x832  LVT timer
//! 0x080   0x808  task priority                     0x350   0x835  LVT LINT0     0x360   0x836  LVT LINT1
//! 0x0B0   0x80B  end of interrupt
//! 0x0F0   0x80F  spurious vector, and on/off       0x370   0x837  LVT error
//! 0x170   0x817  in service: vectors 0xE0 to 0xFF  0x380   0x838  timer: initial count
//! 0x280   0x828  error status                      0x390   0x839  timer: current count
//! 0x300   0x830  interrupt command                 0x3E0   0x83E  timer: divisor
//! ```
//! Intel SDM vol. 3A, tables 12-1 and 12-6. Here KVM plays it, as `vmm/src/interrupts.rs` has asked it to.

use core::sync::atomic::{AtomicU8, Ordering};

use shared_abi::interrupts::LOCAL_APIC;

use super::{cpuid, flags, msr, needs, vectors};

/// How the registers are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// As memory.
    XApic = 1,
    /// As model-specific registers.
    X2Apic = 2,
}

/// A register, by its offset in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Register {
    Id = 0x020,
    TaskPriority = 0x080,
    EndOfInterrupt = 0x0B0,
    SpuriousVector = 0x0F0,
    /// The highest 32 of the vectors that are being served, a bit each.
    InServiceHigh = 0x170,
    ErrorStatus = 0x280,
    /// The low half as an xAPIC, all 64 bits as an x2APIC.
    Command = 0x300,
    /// xAPIC only: the command's destination.
    CommandHigh = 0x310,
    LvtTimer = 0x320,
    LvtLint0 = 0x350,
    LvtLint1 = 0x360,
    LvtError = 0x370,
    InitialCount = 0x380,
    CurrentCount = 0x390,
    Divisor = 0x3E0,
}

/// Bits of the spurious-vector register and of the local vector table (Intel SDM vol. 3A, 12.9 and 12.5.1).
const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
/// IA32_APIC_BASE (Intel SDM vol. 3A, 12.4.4 and 12.12.1).
const APIC_BASE: u32 = 0x1B;
const APIC_BASE_ENABLE: u64 = 1 << 11;
const APIC_BASE_X2APIC: u64 = 1 << 10;
/// The divisor register's value for 1 (Intel SDM vol. 3A, figure 12-10).
const DIVIDE_BY_1: u32 = 0b1011;

/// The mode of all CPUs; 0 before the first was enabled.
static MODE: AtomicU8 = AtomicU8::new(0);

/// How the registers of this machine's local APICs are reached; `None` before the first was enabled.
#[inline]
#[must_use]
pub fn mode() -> Option<Mode> {
    match MODE.load(Ordering::Relaxed) {
        0 => None,
        number if number == Mode::XApic as u8 => Some(Mode::XApic),
        _ => Some(Mode::X2Apic),
    }
}

/// Turns this CPU's local APIC on, with nothing let through but errors: by MSRs where the CPU has them so. All CPUs use
/// the mode of the first.
///
/// # Panics
/// In a machine without interrupt controllers.
pub fn enable() {
    needs::interrupts();
    enable_present();
}

/// The same without asking for it: for those who use controllers where a program has them, and do without where not.
///
/// # Panics
/// In a machine without interrupt controllers.
pub(crate) fn enable_present() {
    let best = if cpuid::has_x2apic() { Mode::X2Apic } else { Mode::XApic };
    turn_on(mode().unwrap_or(best));
}

/// Turns this CPU's local APIC on in a mode. There is no way back from x2APIC but a reset.
///
/// # Panics
/// In a machine without interrupt controllers.
pub fn enable_as(mode: Mode) {
    needs::interrupts();
    turn_on(mode);
}

fn turn_on(mode: Mode) {
    assert!(
        crate::boot_info().interrupts != 0,
        "this machine has no interrupt controllers: start it without `--interrupts off`"
    );
    let mut base = msr::read(APIC_BASE) | APIC_BASE_ENABLE;
    match mode {
        Mode::XApic => crate::device_memory::map_hole().expect("a frame is free for a page table"),
        Mode::X2Apic => base |= APIC_BASE_X2APIC,
    }
    // SAFETY: The base stays where it is. Nothing of ours uses the registers in the other way: `MODE` is set by the first.
    unsafe { msr::write(APIC_BASE, base) };
    MODE.store(mode as u8, Ordering::Relaxed);
    write(Register::TaskPriority, 0);
    write(Register::LvtTimer, MASKED);
    write(Register::LvtLint0, MASKED);
    write(Register::LvtLint1, MASKED);
    write(Register::LvtError, vectors::ERROR.into());
    write(Register::Divisor, DIVIDE_BY_1);
    write(Register::SpuriousVector, SOFTWARE_ENABLE | u32::from(vectors::SPURIOUS));
}

/// The number of this CPU, by which messages find it.
#[must_use]
pub fn id() -> u32 {
    let id = read(Register::Id);
    if mode() == Some(Mode::X2Apic) { id } else { id >> 24 }
}

/// Says that the interrupt that is being served has been: those of the same and lower priority come through again.
#[inline]
pub fn end_of_interrupt() {
    write(Register::EndOfInterrupt, 0);
}

/// Whether the spurious vector is being served, as if it were an interrupt: somebody has sent one on purpose.
#[must_use]
pub(crate) fn serves_spurious() -> bool {
    read(Register::InServiceHigh) >> (vectors::SPURIOUS % 32) & 1 != 0
}

/// What the APIC has found wrong since it was asked last (Intel SDM vol. 3A, figure 12-9).
#[must_use]
pub fn take_errors() -> u32 {
    write(Register::ErrorStatus, 0);
    read(Register::ErrorStatus)
}

/// What a message to other CPUs does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Raises the interrupt of this vector.
    Interrupt(u8),
    /// Raises an NMI.
    NonMaskable,
    /// Resets the CPU; it waits for a start.
    Init,
    /// Starts a CPU that waits, in real mode, at this page.
    Startup(u8),
}

/// Who gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The CPU with this id.
    Cpu(u32),
    /// This one.
    Own,
    /// All but this one.
    Others,
}

/// Sends a message (Intel SDM vol. 3A, figure 12-12). What it does to another CPU is that one's affair: an interrupt
/// vector needs a handler there.
pub fn send(command: Command, to: Destination) {
    let (low, destination) = encode(command, to);
    if mode() == Some(Mode::X2Apic) {
        write_wide(Register::Command, u64::from(destination) << 32 | u64::from(low));
    } else {
        write(Register::CommandHigh, destination << 24);
        write(Register::Command, low);
    }
    if to == Destination::Own {
        flags::look_for_interrupts();
    }
}

/// The low half of the command, and the destination's id.
fn encode(command: Command, to: Destination) -> (u32, u32) {
    const ASSERT: u32 = 1 << 14;
    let mode = |number: u32| number << 8;
    let what = match command {
        Command::Interrupt(vector) => u32::from(vector),
        Command::NonMaskable => mode(4),
        Command::Init => mode(5),
        Command::Startup(page) => mode(6) | u32::from(page),
    };
    let (shorthand, id) = match to {
        Destination::Cpu(id) => (0, id),
        Destination::Own => (1, 0),
        Destination::Others => (3, 0),
    };
    (what | ASSERT | shorthand << 18, id)
}

/// How the timer goes on when it has counted down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It stops.
    Once,
    /// It starts anew, from the same count.
    Forever,
}

/// Has the timer of this CPU count down from `count`, and interrupt at 0 by [`vectors::TIMER`]. 0 stops it. How fast it
/// counts is for [`time`](crate::time) to find out.
pub fn start_timer(count: u32, repeat: Repeat) {
    let mode = if repeat == Repeat::Forever { PERIODIC } else { 0 };
    write(Register::LvtTimer, mode | u32::from(vectors::TIMER));
    write(Register::InitialCount, count);
}

/// Has the timer count down from the largest number without interrupting, to be measured.
pub fn start_silent_timer() {
    write(Register::LvtTimer, MASKED | u32::from(vectors::TIMER));
    write(Register::InitialCount, u32::MAX);
}

/// What the timer has yet to count.
#[must_use]
pub fn timer_count() -> u32 {
    read(Register::CurrentCount)
}

/// The model-specific register that is this one.
fn msr_of(register: Register) -> u32 {
    const X2APIC: u32 = 0x800;
    X2APIC + (register as u32 >> 4)
}

#[inline]
fn read(register: Register) -> u32 {
    if mode() == Some(Mode::X2Apic) {
        return msr::read(msr_of(register)) as u32;
    }
    // SAFETY: `enable_as` has mapped the page, uncached; reading a register of it changes no memory.
    unsafe { page(register).read_volatile() }
}

#[inline]
fn write(register: Register, value: u32) {
    if mode() == Some(Mode::X2Apic) {
        return write_wide(register, value.into());
    }
    // SAFETY: As for reading. What the controller does is to interrupt, through gates that lead to code of ours.
    unsafe { page(register).write_volatile(value) };
}

fn write_wide(register: Register, value: u64) {
    // SAFETY: A register of the local APIC. What the controller does is to interrupt, through gates that lead to code of
    // ours.
    unsafe { msr::write(msr_of(register), value) };
}

fn page(register: Register) -> *mut u32 {
    (LOCAL_APIC.0 + u64::from(register as u32)) as *mut u32
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_of_the_manual() {
        assert_eq!(encode(Command::Interrupt(0x41), Destination::Cpu(3)), (0x4041, 3));
        assert_eq!(encode(Command::Init, Destination::Cpu(1)), (0x4500, 1));
        assert_eq!(encode(Command::Startup(8), Destination::Cpu(1)), (0x4608, 1));
        assert_eq!(encode(Command::NonMaskable, Destination::Others), (0xC_4400, 0));
        assert_eq!(encode(Command::Interrupt(0x41), Destination::Own), (0x4_4041, 0));
    }

    #[test]
    fn the_same_offset_names_a_register_in_both_modes() {
        assert_eq!(msr_of(Register::Id), 0x802);
        assert_eq!(msr_of(Register::Command), 0x830);
        assert_eq!(msr_of(Register::Divisor), 0x83E);
        assert_eq!(page(Register::LvtTimer) as u64, 0xFEE0_0320);
    }
}
