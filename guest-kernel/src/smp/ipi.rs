//! IPIs: interrupts that CPUs send one another, through their local APICs.
//!
//! They need a machine with interrupt controllers. Two are the kernel's own: one wakes a CPU that has halted, the other
//! makes it forget a mapping. The rest of the range is for programs:
//!
//! ```no_run,ignore-none
//! use guest_kernel::interrupts;
//! use guest_kernel::smp::{self, ipi};
//!
//! interrupts::on(ipi::FREE, |_| println!("{} was called", smp::id()));
//! ipi::send(smp::CpuId::new(1).expect("a number"), ipi::FREE);
//! # use guest_kernel::println;
//! ```

use core::sync::atomic::{AtomicBool, Ordering};

use super::{CpuId, MAX_CPUS, PerCpu, id, shootdown};
use crate::cpu::apic::{self, Command, Destination};
use crate::cpu::{flags, vectors};
use crate::interrupts;

/// Wakes a CPU that has halted; that it comes is all it says.
const WAKE: u8 = vectors::IPI;
/// Makes a CPU forget what it remembers of page tables.
const FLUSH: u8 = vectors::IPI + 1;
/// The first vector that is free for programs; the last is [`vectors::IPI_END`] - 1.
pub const FREE: u8 = vectors::IPI + 2;

/// Which CPUs take messages: their local APIC is on.
static LISTENS: PerCpu<AtomicBool> = PerCpu::new([const { AtomicBool::new(false) }; MAX_CPUS]);

/// Readies this CPU to send messages and to be sent some, where the machine has controllers. On the first CPU this lets
/// interrupts through, as every first use of controllers does.
pub(super) fn get_ready() {
    if !LISTENS.mine().load(Ordering::Relaxed) {
        interrupts::on(WAKE, |_| {});
        interrupts::on(FLUSH, |_| shootdown::serve());
        if interrupts::is_enabled() {
            // The program has turned it on, and its timer may run.
            LISTENS.mine().store(true, Ordering::Release);
        } else {
            listen();
            flags::restore_interrupts(flags::Interrupts::Enabled);
        }
    }
}

/// Turns this CPU's local APIC on: from now on messages come.
pub(super) fn listen() {
    apic::enable_present();
    LISTENS.mine().store(true, Ordering::Release);
}

/// Whether a message would wake this CPU from HLT.
pub(super) fn can_wake(cpu: CpuId) -> bool {
    LISTENS.of(cpu).load(Ordering::Acquire)
}

/// Wakes `cpu`, should it have halted.
pub(super) fn wake(cpu: CpuId) {
    send_to(cpu, WAKE);
}

/// Has `cpu` look what it should forget.
pub(super) fn flush(cpu: CpuId) {
    send_to(cpu, FLUSH);
}

/// Interrupts `cpu` by this vector, from the range between [`FREE`] and [`vectors::IPI_END`]. A CPU that has interrupts off
/// takes it when they are on again.
///
/// # Panics
/// In a machine without interrupt controllers, and for a vector outside the range.
pub fn send(cpu: CpuId, vector: u8) {
    check(vector);
    send_to(cpu, vector);
}

/// Interrupts all other CPUs by this vector. Those that were never started do not notice.
///
/// # Panics
/// As [`send`].
pub fn broadcast(vector: u8) {
    check(vector);
    with_interrupts_off(|| apic::send(Command::Interrupt(vector), Destination::Others));
}

fn check(vector: u8) {
    assert!((FREE..vectors::IPI_END).contains(&vector), "vector {vector:#x} is not for messages of programs");
    assert!(
        can_wake(id()),
        "CPUs send messages in machines with interrupt controllers, and after one was started"
    );
}

fn send_to(cpu: CpuId, vector: u8) {
    with_interrupts_off(|| apic::send(Command::Interrupt(vector), Destination::Cpu(cpu.number() as u32)));
}

/// As an xAPIC a message is two writes, between which a handler must not send another.
fn with_interrupts_off(send: impl FnOnce()) {
    let before = flags::disable_interrupts();
    send();
    flags::restore_interrupts(before);
}
