//! Time: `Instant` as in `std`, `sleep`, and alarms.
//!
//! ```no_run,ignore-none
//! use core::time::Duration;
//! use guest_kernel::println;
//! use guest_kernel::time::{Instant, sleep};
//!
//! let start = Instant::now();
//! sleep(Duration::from_millis(10));
//! println!("slept for {:?}", start.elapsed());
//! ```
//!
//! Two things are needed, and they are different things. A *clock* says how late it is ([`clock`]): reading it is a few
//! instructions. A *timer* interrupts when it is time ([`timer`]): a CPU that has nothing to do halts until then, and costs
//! its host nothing.

pub mod clock;
pub mod timer;

use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

use crate::cpu::flags;
use crate::interrupts;

/// A moment, by the clock of this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant {
    ns: u64,
}

impl Instant {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        Self { ns: clock::now_ns() }
    }

    /// How long ago it was; nothing if it is yet to come.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now() - self
    }

    /// How long after `earlier` it is; nothing if it is before.
    #[must_use]
    pub fn duration_since(self, earlier: Self) -> Duration {
        self - earlier
    }
}

/// A moment later; the end of time is 584 years after the machine's start.
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self { ns: self.ns.saturating_add(ns) }
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

/// The time between two moments; none when the second is the later one.
impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.ns.saturating_sub(earlier.ns))
    }
}

/// Waits for a time; the CPU halts meanwhile.
///
/// Where it may not, it looks at the clock again and again: in a machine without interrupt controllers, and where
/// interrupts are off because somebody holds a lock or serves an interrupt.
pub fn sleep(duration: Duration) {
    sleep_until(Instant::now() + duration);
}

/// Waits for a moment, as [`sleep`] does.
pub fn sleep_until(moment: Instant) {
    let may_halt = flags::interrupts_enabled() || !interrupts::is_enabled();
    if may_halt && crate::boot_info().interrupts != 0 && timer::wait_until(moment) {
        return;
    }
    while Instant::now() < moment {
        core::hint::spin_loop();
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn time_ends_and_does_not_wrap() {
        let late = Instant { ns: u64::MAX - 5 };
        assert_eq!(late + Duration::from_secs(1), Instant { ns: u64::MAX });
        assert_eq!(Instant { ns: 7 } - Instant { ns: 9 }, Duration::ZERO);
        assert_eq!(Instant { ns: 9 } - Instant { ns: 7 }, Duration::from_nanos(2));
    }
}
