//! TLB shootdown: makes all CPUs forget how an address was mapped.
//!
//! `invlpg` reaches the CPU that executes it. The others may remember a mapping that is gone, and use memory that is
//! somebody else's by then. So whoever has taken one away asks them all, and waits until each has forgotten:
//!
//! ```text
//! this CPU                              each other that is online
//! entry = none, invlpg
//! its number = ++ASKED ───────────────► (an IPI, where there are controllers)
//!                                       number = ASKED, reload CR3
//! wait until its number is reached ◄─── FORGOTTEN = number
//! ```
//!
//! The numbers only grow, so two CPUs may ask at once, and one answer may serve both.
//!
//! A CPU with interrupts off takes no IPI, and may even wait for a lock that the asking CPU holds. It answers all the
//! same: whoever waits for anything looks here in each turn ([`relax`](super::relax)), the asking CPU too. In a machine
//! without controllers that is the only way, beside the end of a piece of work. A CPU that is offline, idle or not
//! started, need not be asked: it forgets everything when it comes online.

use core::sync::atomic::{AtomicU64, Ordering};

use shared_abi::Gva;

use super::start::has_controllers;
use super::{CpuId, MAX_CPUS, PerCpu, id, ipi};
use crate::cpu::cr3;
use crate::memory::tlb;

/// A bit for each CPU that may remember mappings.
static ONLINE: AtomicU64 = AtomicU64::new(1);
/// How often the CPUs were asked to forget.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// The last of these that each CPU has answered.
static FORGOTTEN: PerCpu<AtomicU64> = PerCpu::new([const { AtomicU64::new(0) }; MAX_CPUS]);

const _: () = assert!(MAX_CPUS <= u64::BITS as usize);

fn bit(cpu: CpuId) -> u64 {
    1 << cpu.number()
}

/// Has mappings that are taken away be forgotten everywhere. Before the first other CPU starts.
pub(super) fn get_ready() {
    tlb::on_flush(|_| forget_everywhere());
}

/// This CPU may remember mappings from now on. It first forgets what it may have remembered.
pub(super) fn come_online() {
    ONLINE.fetch_or(bit(id()), Ordering::SeqCst);
    forget();
}

/// This CPU uses no memory but its stack and what is never unmapped, until it comes online again.
pub(super) fn go_offline() {
    ONLINE.fetch_and(!bit(id()), Ordering::SeqCst);
}

/// Forgets what this CPU was asked to forget, if it was.
#[inline]
pub(super) fn serve() {
    let asked = ASKED.load(Ordering::Relaxed);
    if asked != 0 && FORGOTTEN.mine().load(Ordering::Relaxed) < asked {
        forget();
    }
}

/// The number first: who asks from here on is answered by the next.
fn forget() {
    let asked = ASKED.load(Ordering::SeqCst);
    cr3::flush();
    FORGOTTEN.mine().fetch_max(asked, Ordering::SeqCst);
}

/// Asks all other CPUs that are online, and waits until they have forgotten.
fn forget_everywhere() {
    let number = ASKED.fetch_add(1, Ordering::SeqCst) + 1;
    let others = ONLINE.load(Ordering::SeqCst) & !bit(id());
    let asked = || super::cpus().filter(move |&cpu| others & bit(cpu) != 0);
    if has_controllers() {
        asked().filter(|&cpu| ipi::can_wake(cpu)).for_each(ipi::flush);
    }
    for cpu in asked() {
        let remembers = || {
            let is_online = ONLINE.load(Ordering::SeqCst) & bit(cpu) != 0;
            is_online && FORGOTTEN.of(cpu).load(Ordering::SeqCst) < number
        };
        while remembers() {
            // Another CPU may wait for this one in the same way.
            super::relax();
        }
    }
}

/// Makes this CPU and all others forget how `gva` was mapped, as the mapper does by itself.
pub fn flush(gva: Gva) {
    tlb::flush(gva);
}
