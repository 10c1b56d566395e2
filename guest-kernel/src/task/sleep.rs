//! Waiting for a time, as a future.

use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use crate::time::Instant;
use crate::time::timer::{self, AlarmId};

/// Waits for a time; other tasks run meanwhile. They do also when there is nothing to wait for: those that are late take
/// turns, in the order of their times.
#[must_use = "it sleeps when it is awaited"]
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(Instant::now() + duration)
}

/// Waits for a moment.
#[must_use = "it sleeps when it is awaited"]
pub fn sleep_until(moment: Instant) -> Sleep {
    Sleep { moment, has_waited: false, alarm: None }
}

/// Ready at a moment.
#[derive(Debug)]
pub struct Sleep {
    moment: Instant,
    has_waited: bool,
    /// What wakes the task that asked last.
    alarm: Option<AlarmId>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.forget_alarm();
        let has_waited = core::mem::replace(&mut self.has_waited, true);
        if has_waited && Instant::now() >= self.moment {
            return Poll::Ready(());
        }
        match timer::wake_at(self.moment, context.waker().clone()) {
            Ok(alarm) => self.alarm = Some(alarm),
            // So many wait that this one must look for itself.
            Err(timer::TooManyAlarms) => context.waker().wake_by_ref(),
        }
        Poll::Pending
    }
}

impl Sleep {
    fn forget_alarm(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            timer::cancel(alarm);
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget_alarm();
    }
}
