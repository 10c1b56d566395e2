//! Where CPUs meet: [`Mutex`], what one CPU has at a time, and no interrupt handler meanwhile; [`Once`], what is made once;
//! [`Barrier`], where all wait for the last.
//!
//! A mutex meets two dangers, and has two halves. Another CPU may want the same thing: it spins until the lock is free. And the handler of an
//! interrupt may want it on the very CPU that has it: it would spin for ever, because the code that could free the lock
//! is the one it has interrupted. So interrupts are off on this CPU for as long as the lock is held, and while waiting
//! they are as they were. Exceptions are not held off by that: their handlers must not take a lock that the code they
//! interrupt may have.

use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::cpu::flags::{self, Interrupts};
use crate::smp;

/// A value that is reached through [`lock`](Self::lock) only.
pub struct Mutex<T> {
    spin: spin::Mutex<T>,
}

impl<T> Mutex<T> {
    /// A lock that nobody has.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self { spin: spin::Mutex::new(value) }
    }

    /// Waits until nobody has it. A CPU that has it already waits for ever.
    pub fn lock(&self) -> Guard<'_, T> {
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            smp::relax();
        }
    }

    /// Takes it if nobody has it.
    pub fn try_lock(&self) -> Option<Guard<'_, T>> {
        let interrupts = flags::disable_interrupts();
        match self.spin.try_lock() {
            Some(guard) => Some(Guard { spin: ManuallyDrop::new(guard), interrupts }),
            None => {
                flags::restore_interrupts(interrupts);
                None
            }
        }
    }
}

/// Whoever has this has the lock; it is free again when this is dropped.
pub struct Guard<'a, T> {
    spin: ManuallyDrop<spin::MutexGuard<'a, T>>,
    interrupts: Interrupts,
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.spin
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.spin
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        // First free, then interruptible: the other way round a handler could find it taken.
        // SAFETY: The guard is dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.spin) };
        flags::restore_interrupts(self.interrupts);
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spin.fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for Guard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A value that is made when it is first wanted, by one CPU; others that want it wait meanwhile. The handler of an
/// interrupt must not want it, lest it wait for the code that it has interrupted.
pub type Once<T> = spin::once::Once<T, Relax>;

/// What CPUs do while they wait for one another.
#[derive(Clone, Copy, Debug)]
pub struct Relax;

impl spin::RelaxStrategy for Relax {
    fn relax() {
        smp::relax();
    }
}

/// A place where so many CPUs wait until all have come, as often as they like.
#[derive(Debug)]
pub struct Barrier {
    count: usize,
    arrived: AtomicUsize,
    /// How often all have come.
    round: AtomicUsize,
}

impl Barrier {
    /// A barrier for `count` CPUs.
    #[must_use]
    pub const fn new(count: usize) -> Self {
        Self { count, arrived: AtomicUsize::new(0), round: AtomicUsize::new(0) }
    }

    /// Waits for the others. True for the one that came last.
    pub fn wait(&self) -> bool {
        // Read first: the last one ends this round.
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 >= self.count {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return true;
        }
        while self.round.load(Ordering::Acquire) == round {
            smp::relax();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_test;

    #[guest_test]
    fn a_lock_is_had_once_at_a_time() {
        let lock = Mutex::new(1);
        let mut guard = lock.lock();
        *guard += 1;
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert_eq!(*lock.lock(), 2);
    }

    #[guest_test]
    fn what_is_made_once_is_made_once() {
        let once = Once::new();
        assert_eq!(once.get(), None);
        assert_eq!(once.try_call_once(|| Err("not yet")), Err("not yet"));
        assert_eq!(*once.call_once(|| 1), 1);
        assert_eq!(*once.call_once(|| 2), 1);
    }

    #[guest_test]
    fn a_barrier_of_one_lets_it_through() {
        let barrier = Barrier::new(1);
        assert!(barrier.wait() && barrier.wait());
    }

    #[guest_test]
    fn interrupts_stay_as_they_were() {
        let lock = Mutex::new(());
        assert!(!flags::interrupts_enabled(), "a guest starts with interrupts off");
        drop(lock.lock());
        assert!(!flags::interrupts_enabled());
    }
}
