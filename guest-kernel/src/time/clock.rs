//! The clock: how late it is, in nanoseconds since some moment before the machine's start.
//!
//! The CPU has a counter that anybody can read, the TSC; the question is how fast it counts, and whether it goes on when
//! the machine moves to another host. A hypervisor knows. KVM tells by *kvmclock*: the guest names a place in memory,
//! and there KVM keeps what makes nanoseconds of the counter (Linux Documentation/virt/kvm/x86/msr.rst,
//! MSR_KVM_SYSTEM_TIME_NEW):
//!
//! ```text
//! ns = system_time + ((TSC - tsc_timestamp) << tsc_shift) * tsc_to_system_mul >> 32
//! ```
//!
//! Where CPUID does not offer that, the frequency in [`BootInfo`](crate::BootInfo) is as good for as long as the machine
//! stays where it is. And where the host does not know even that, each look at the clock is a call to it.

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};

use crate::cpu::{cpuid, msr, tsc};
use crate::hypercall;
use crate::sync::Mutex;

/// Where the time comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// KVM's own clock.
    KvmClock = 1,
    /// The counter, at the frequency that the host has told.
    Counter = 2,
    /// A call to the host.
    Host = 3,
}

/// The source that was found; 0 before the first look.
static SOURCE: AtomicU8 = AtomicU8::new(0);
/// Whoever finds the source has this.
static FINDING: Mutex<()> = Mutex::new(());

/// Nanoseconds since some moment; they never go back.
#[must_use]
pub fn now_ns() -> u64 {
    match source() {
        Source::KvmClock => KVM_CLOCK.read(),
        Source::Counter => scaled(tsc::read(), COUNTER_SCALE.load(Ordering::Relaxed), 0),
        Source::Host => hypercall::monotonic_ns(),
    }
}

/// The source; the first look finds it.
#[must_use]
pub fn source() -> Source {
    match SOURCE.load(Ordering::Acquire) {
        0 => {
            // One CPU finds it, and none of its interrupts looks at the clock meanwhile.
            let _finding = FINDING.lock();
            if SOURCE.load(Ordering::Acquire) == 0 {
                SOURCE.store(find() as u8, Ordering::Release);
            }
            source()
        }
        number if number == Source::KvmClock as u8 => Source::KvmClock,
        number if number == Source::Counter as u8 => Source::Counter,
        _ => Source::Host,
    }
}

fn find() -> Source {
    if KVM_CLOCK.start() {
        return Source::KvmClock;
    }
    match (1_000_000_u64 << 32).checked_div(crate::boot_info().tsc_khz) {
        Some(scale) => {
            COUNTER_SCALE.store(scale, Ordering::Relaxed);
            Source::Counter
        }
        None => Source::Host,
    }
}

/// Nanoseconds of a count, times 2³², for [`Source::Counter`].
static COUNTER_SCALE: AtomicU64 = AtomicU64::new(0);

/// `count` shifted to the left, or to the right where that is negative, times `scale`, divided by 2³².
fn scaled(count: u64, scale: u64, shift: i8) -> u64 {
    let distance = u32::from(shift.unsigned_abs());
    let count = if shift < 0 { count >> distance } else { count << distance };
    ((u128::from(count) * u128::from(scale)) >> 32) as u64
}

/// What KVM keeps for us, as the Linux document has it. KVM writes it while the guest does not run; on the CPU that reads,
/// or on another.
#[repr(C, align(64))]
struct KvmClock {
    /// Odd while it is being written.
    version: AtomicU32,
    padding: AtomicU32,
    tsc_timestamp: AtomicU64,
    system_time: AtomicU64,
    tsc_to_system_mul: AtomicU32,
    /// A signed byte, then flags, then two bytes of nothing.
    shift_and_flags: AtomicU32,
}

static KVM_CLOCK: KvmClock = KvmClock {
    version: AtomicU32::new(0),
    padding: AtomicU32::new(0),
    tsc_timestamp: AtomicU64::new(0),
    system_time: AtomicU64::new(0),
    tsc_to_system_mul: AtomicU32::new(0),
    shift_and_flags: AtomicU32::new(0),
};

impl KvmClock {
    /// CPUID 0x40000001, EAX bit 3.
    const FEATURE: u32 = 1 << 3;
    const SYSTEM_TIME_NEW: u32 = 0x4B56_4D01;
    const ENABLE: u64 = 1;
    /// Among the flags: the counters of all CPUs agree, so that one place serves all.
    const IS_STABLE: u8 = 1 << 0;

    /// Has KVM keep the place, if it can; whether the time can be read now.
    fn start(&'static self) -> bool {
        if cpuid::kvm_features() & Self::FEATURE == 0 {
            return false;
        }
        let gpa = &raw const *self as u64;
        // SAFETY: KVM writes 32 bytes at this address from now on, at any moment. They are atomics, of a static, in memory
        // that is mapped at its own address and used for nothing else.
        unsafe { msr::write(Self::SYSTEM_TIME_NEW, gpa | Self::ENABLE) };
        let is_written = self.version.load(Ordering::Acquire) != 0;
        let [_, flags, ..] = self.shift_and_flags.load(Ordering::Relaxed).to_le_bytes();
        let serves_all = flags & Self::IS_STABLE != 0 || crate::boot_info().vcpu_count == 1;
        is_written && serves_all
    }

    fn read(&self) -> u64 {
        loop {
            let version = self.version.load(Ordering::Acquire);
            let [shift, ..] = self.shift_and_flags.load(Ordering::Relaxed).to_le_bytes();
            let count = tsc::read().saturating_sub(self.tsc_timestamp.load(Ordering::Relaxed));
            let scale = self.tsc_to_system_mul.load(Ordering::Relaxed).into();
            let since = scaled(count, scale, shift.cast_signed());
            let ns = self.system_time.load(Ordering::Relaxed).wrapping_add(since);
            fence(Ordering::Acquire);
            if version & 1 == 0 && version == self.version.load(Ordering::Relaxed) {
                return ns;
            }
        }
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn counts_become_nanoseconds() {
        // 2.5 GHz: 0.4 ns a count.
        let scale = (1_000_000_u64 << 32) / 2_500_000;
        assert_eq!(scaled(2_500_000_000, scale, 0), 999_999_999, "rounded down");
        assert_eq!(scaled(1 << 62, 1 << 31, 0), 1 << 61, "58 years of counting");
        assert_eq!(scaled(10, 1 << 31, 1), 10);
        assert_eq!(scaled(10, 1 << 32, -1), 5);
    }

    #[test]
    fn the_place_is_as_kvm_has_it() {
        use core::mem::offset_of;
        assert_eq!((offset_of!(KvmClock, tsc_timestamp), offset_of!(KvmClock, system_time)), (8, 16));
        assert_eq!(
            (offset_of!(KvmClock, tsc_to_system_mul), offset_of!(KvmClock, shift_and_flags)),
            (24, 28)
        );
    }
}
