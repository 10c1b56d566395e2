//! The timer: interrupts when it is time.
//!
//! Each CPU's local APIC has one. It counts down from a number at a speed of its own and interrupts at 0. Nothing says how
//! fast it counts, so the first use measures it against the [clock](super::clock) for a millisecond.
//!
//! One timer, many who wait: their alarms are in a list, and the timer is set for the first of them. An alarm that repeats
//! is one that is set again, a period after it was due and not after it came: delays do not add up. (The timer could
//! repeat by itself, [`apic::Repeat::Forever`]; then it would serve nobody else.)
//!
//! There is a third way, a deadline in units of the TSC. Not every KVM that offers it keeps its word, and it would save
//! one multiplication.

use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Waker;
use core::time::Duration;

use crate::cpu::{apic, flags, halt, vectors};
use crate::exceptions::Frame;
use crate::interrupts::{self, Handler};
use crate::sync::Mutex;
use crate::time::Instant;

/// How many alarms may be set at once.
pub const MAX_ALARMS: usize = 64;

/// All alarms.
static ALARMS: Mutex<Alarms> = Mutex::new(Alarms::NONE);

/// Counts of the timer in a nanosecond, times 2³²; 0 before it was measured.
static COUNTS_PER_NS: AtomicU64 = AtomicU64::new(0);

/// How long the timer is measured.
const MEASURED: Duration = Duration::from_millis(1);

/// An alarm that was set: by this it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlarmId(u64);

/// There is no room for another alarm: [`MAX_ALARMS`] are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyAlarms;

/// What is done when it is time.
#[derive(Clone, Debug)]
enum Deed {
    /// The CPU has been interrupted, and that is all.
    Nothing,
    /// A function is called in the interrupt.
    Call(Handler),
    /// A task is woken.
    Wake(Waker),
}

#[derive(Clone, Debug)]
struct Alarm {
    id: AlarmId,
    at: Instant,
    period: Option<Duration>,
    deed: Deed,
}

/// The alarms by their time, without gaps: an interrupt looks at the first only. Plain loops, because where a KVM
/// interprets the kernel and the compiler does not optimise, each step of an iterator is microseconds.
struct Alarms {
    list: [Option<Alarm>; MAX_ALARMS],
    count: usize,
    next_id: u64,
}

/// Has `handler` called once, in an interrupt at `moment`.
///
/// # Errors
/// [`TooManyAlarms`].
pub fn at(moment: Instant, handler: Handler) -> Result<AlarmId, TooManyAlarms> {
    set(moment, None, Deed::Call(handler))
}

/// Has `handler` called in an interrupt again and again, the first time after one period.
///
/// # Errors
/// [`TooManyAlarms`].
pub fn every(period: Duration, handler: Handler) -> Result<AlarmId, TooManyAlarms> {
    let period = period.max(Duration::from_nanos(1));
    set(Instant::now() + period, Some(period), Deed::Call(handler))
}

/// Wakes a task at `moment`.
///
/// # Errors
/// [`TooManyAlarms`].
pub fn wake_at(moment: Instant, waker: Waker) -> Result<AlarmId, TooManyAlarms> {
    set(moment, None, Deed::Wake(waker))
}

/// Takes an alarm back. One that has come already is gone by itself.
pub fn cancel(id: AlarmId) {
    let mut alarms = ALARMS.lock();
    if let Some(place) = alarms.place_of(id) {
        alarms.take(place);
    }
}

/// Halts until `moment`, and whenever something else interrupts, again. False when there are too many alarms already.
pub(super) fn wait_until(moment: Instant) -> bool {
    let Ok(id) = set(moment, None, Deed::Nothing) else { return false };
    while Instant::now() < moment {
        // Between the look at the alarm and the halt nothing may come: what then comes would not end the halt.
        let before = flags::disable_interrupts();
        if ALARMS.lock().place_of(id).is_some() {
            halt::wait_for_interrupt();
        } else {
            flags::restore_interrupts(before);
        }
    }
    cancel(id);
    true
}

fn set(at: Instant, period: Option<Duration>, deed: Deed) -> Result<AlarmId, TooManyAlarms> {
    start();
    let mut alarms = ALARMS.lock();
    let id = AlarmId(alarms.next_id);
    alarms.next_id += 1;
    alarms.add(Alarm { id, at, period, deed })?;
    alarms.arm();
    Ok(id)
}

/// Makes the timer ready, the first time.
fn start() {
    if COUNTS_PER_NS.load(Ordering::Relaxed) == 0 {
        interrupts::start();
        interrupts::on(vectors::TIMER, on_timer);
        COUNTS_PER_NS.store(measure(), Ordering::Relaxed);
    }
}

/// How fast the timer counts, in counts a nanosecond, times 2³².
fn measure() -> u64 {
    let before = flags::disable_interrupts();
    apic::start_silent_timer();
    let (start, first) = look();
    while start.elapsed() < MEASURED {
        core::hint::spin_loop();
    }
    let (end, last) = look();
    flags::restore_interrupts(before);
    let (counts, ns) = (u64::from(first - last), (end - start).as_nanos() as u64);
    ((counts << 32) / ns.max(1)).max(1)
}

/// Clock and timer at the same moment, as far as that can be: the host may stop the guest between the two looks, so the
/// quickest of some counts.
fn look() -> (Instant, u32) {
    const TRIES: usize = 3;
    let looks = [(); TRIES].map(|()| {
        let (before, count, after) = (Instant::now(), apic::timer_count(), Instant::now());
        (after - before, before, count)
    });
    let quickest = looks.into_iter().min().expect("there are some");
    let (took, before, count) = quickest;
    (before + took / 2, count)
}

/// It is time for some alarm, or the timer could not count further.
fn on_timer(frame: &mut Frame) {
    // One look at the clock: what is set for later than this comes with the next interrupt, so this one ends.
    let now = Instant::now();
    loop {
        // The lock is free while the deed is done: it may set another alarm.
        let due = ALARMS.lock().take_due(now);
        match due {
            Some(Deed::Call(handler)) => handler(frame),
            Some(Deed::Wake(waker)) => waker.wake(),
            Some(Deed::Nothing) => {}
            None => break,
        }
    }
    ALARMS.lock().arm();
}

impl Alarms {
    const NONE: Self = Self { list: [const { None }; MAX_ALARMS], count: 0, next_id: 1 };

    /// Puts it before those that come later, and behind those that come at the same time.
    fn add(&mut self, alarm: Alarm) -> Result<(), TooManyAlarms> {
        if self.count == MAX_ALARMS {
            return Err(TooManyAlarms);
        }
        let mut place = self.count;
        while place > 0 && self.list[place - 1].as_ref().is_some_and(|other| other.at > alarm.at) {
            self.list.swap(place, place - 1);
            place -= 1;
        }
        self.list[place] = Some(alarm);
        self.count += 1;
        Ok(())
    }

    fn place_of(&self, id: AlarmId) -> Option<usize> {
        let mut place = 0;
        while let Some(alarm) = self.list.get(place)?.as_ref() {
            if alarm.id == id {
                return Some(place);
            }
            place += 1;
        }
        None
    }

    /// Takes out the one at `place`; those behind it move up.
    fn take(&mut self, place: usize) -> Option<Alarm> {
        let taken = self.list.get_mut(place)?.take()?;
        self.count -= 1;
        let mut place = place;
        while place < self.count {
            self.list.swap(place, place + 1);
            place += 1;
        }
        Some(taken)
    }

    /// The deed of the first alarm, if that is due. One that repeats is set for its next time that is yet to come: those
    /// that were missed are over.
    fn take_due(&mut self, now: Instant) -> Option<Deed> {
        if self.first()? > now {
            return None;
        }
        let alarm = self.take(0)?;
        if let Some(period) = alarm.period {
            let again = Alarm { at: next_time(alarm.at, period, now), deed: alarm.deed.clone(), ..alarm };
            self.add(again).expect("one was just taken out");
        }
        Some(alarm.deed)
    }

    fn first(&self) -> Option<Instant> {
        let [first, ..] = &self.list;
        first.as_ref().map(|alarm| alarm.at)
    }

    /// Sets the timer of this CPU for the first alarm.
    fn arm(&self) {
        let Some(first) = self.first() else { return };
        let ns = first.ns.saturating_sub(Instant::now().ns);
        apic::start_timer(count_of(ns, COUNTS_PER_NS.load(Ordering::Relaxed)), apic::Repeat::Once);
    }
}

/// The first moment after `now` that is a whole number of periods behind `at`.
fn next_time(at: Instant, period: Duration, now: Instant) -> Instant {
    let next = at + period;
    if next > now {
        return next;
    }
    let missed = (now - at).as_nanos() / period.as_nanos().max(1);
    at + period.saturating_mul(u32::try_from(missed).unwrap_or(u32::MAX).saturating_add(1))
}

/// The count that takes `ns`: at least 1, as 0 stops the timer, and at most what it holds. An alarm that is further away
/// is looked at again when that much has passed.
fn count_of(ns: u64, counts_per_ns: u64) -> u32 {
    // Rounded up: one that comes early would only have to be waited for once more.
    let count = ((u128::from(ns) * u128::from(counts_per_ns)) >> 32) + 1;
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    fn moment(ms: u64) -> Instant {
        Instant::default() + Duration::from_millis(ms)
    }

    fn alarms(times: &[u64]) -> Alarms {
        let mut alarms = Alarms::NONE;
        for (id, ms) in (1..).zip(times) {
            let alarm = Alarm { id: AlarmId(id), at: moment(*ms), period: None, deed: Deed::Nothing };
            alarms.add(alarm).expect("there is room");
        }
        alarms
    }

    #[test]
    fn alarms_come_in_their_order_and_not_before_their_time() {
        let mut alarms = alarms(&[30, 10, 20]);
        let times: Vec<_> = (0..4).map(|_| alarms.take_due(moment(20)).is_some()).collect();
        assert_eq!(times, [true, true, false, false]);
        assert_eq!([1, 2, 3].map(|id| alarms.place_of(AlarmId(id))), [Some(0), None, None]);
        assert_eq!(alarms.count, 1);
    }

    #[test]
    fn what_repeats_keeps_its_rhythm_however_late_it_comes() {
        let period = Duration::from_millis(10);
        assert_eq!(next_time(moment(10), period, moment(12)), moment(20));
        assert_eq!(next_time(moment(10), period, moment(20)), moment(30));
        assert_eq!(next_time(moment(10), period, moment(57)), moment(60));
    }

    #[test]
    fn there_is_room_for_so_many_and_then_it_is_said() {
        let mut alarms = alarms(&[1; MAX_ALARMS]);
        let more = Alarm { id: AlarmId(99), at: moment(0), period: None, deed: Deed::Nothing };
        assert_eq!(alarms.add(more.clone()), Err(TooManyAlarms));
        let place = alarms.place_of(AlarmId(7)).expect("it was set");
        assert_eq!(alarms.take(place).map(|alarm| alarm.id), Some(AlarmId(7)));
        assert_eq!(alarms.add(more), Ok(()));
    }

    #[test]
    fn a_count_is_never_0_and_never_too_large() {
        assert_eq!(count_of(0, 1 << 32), 1);
        assert_eq!(count_of(1000, 1 << 32), 1001);
        assert_eq!(count_of(1000, 1 << 30), 251);
        assert_eq!(count_of(u64::MAX, 1 << 32), u32::MAX);
    }
}
