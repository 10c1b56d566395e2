//! Clocks, sleep, alarms.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use guest_kernel::smp::{CpuId, spawn_on};
use guest_kernel::sync::Mutex;
use guest_kernel::time::{Instant, clock, sleep, sleep_until, timer};
use guest_kernel::{guest_test, hypercall, interrupts, println};

#[guest_test]
fn the_clock_goes_as_fast_as_the_hosts() {
    // Our clock is read between two looks at the host's, so the true time lies between two others.
    let look = || (hypercall::monotonic_ns(), Instant::now(), hypercall::monotonic_ns());
    let (before_start, start, behind_start) = look();
    sleep(Duration::from_millis(50));
    let (before_end, end, behind_end) = look();
    let took = (end - start).as_nanos() as u64;
    let (least, most) = (before_end - behind_start, behind_end - before_start);
    println!("{took} ns by {:?}, {least} to {most} by the host's clock", clock::source());
    assert!(least * 99 / 100 <= took && took <= most * 101 / 100);
}

#[guest_test(max_exits = 1)]
fn the_clock_never_goes_back() {
    let mut last = Instant::now();
    for _ in 0..1000 {
        let now = Instant::now();
        assert!(now >= last);
        last = now;
    }
}

#[guest_test]
fn sleep_is_never_too_short() {
    for ms in [0, 1, 5, 20] {
        let start = Instant::now();
        sleep(Duration::from_millis(ms));
        let took = start.elapsed();
        println!("{ms} ms: {took:?}");
        assert!(took >= Duration::from_millis(ms));
    }
}

#[guest_test(max_exits = 0)]
fn sleep_with_a_lock_held_does_not_let_interrupts_in() {
    static LOCK: Mutex<u64> = Mutex::new(0);
    interrupts::enable();
    // Late enough to have the lock before it comes, also on a busy host.
    let moment = Instant::now() + Duration::from_millis(200);
    timer::at(moment, |_| *LOCK.lock() += 1).expect("there is room");
    let guard = LOCK.lock();
    sleep_until(moment + Duration::from_millis(3));
    assert_eq!(*guard, 0, "the alarm waits for the lock to be free");
    drop(guard);
    interrupts::wait_while(|| *LOCK.lock() == 0);
}

#[guest_test(max_exits = 0)]
fn alarms_come_in_the_order_of_their_times() {
    static ORDER: Mutex<([u8; 3], usize)> = Mutex::new(([0; 3], 0));
    fn note(which: u8) {
        let (order, count) = &mut *ORDER.lock();
        order[*count] = which;
        *count += 1;
    }
    // Later than it takes to set all of them, also on a busy host.
    let start = Instant::now() + Duration::from_millis(200);
    let ms = |ms| start + Duration::from_millis(ms);
    timer::at(ms(12), |_| note(3)).expect("there is room");
    timer::at(ms(4), |_| note(1)).expect("there is room");
    timer::at(ms(8), |_| note(2)).expect("there is room");
    interrupts::wait_while(|| ORDER.lock().1 < 3);
    assert_eq!(ORDER.lock().0, [1, 2, 3]);
}

#[guest_test(max_exits = 0)]
fn an_alarm_that_was_taken_back_does_not_come() {
    static CAME: AtomicU64 = AtomicU64::new(0);
    let moment = Instant::now() + Duration::from_millis(200);
    let id = timer::at(moment, |_| {
        CAME.fetch_add(1, Ordering::Relaxed);
    });
    timer::cancel(id.expect("there is room"));
    sleep_until(moment + Duration::from_millis(3));
    assert_eq!(CAME.load(Ordering::Relaxed), 0);
}

#[guest_test(max_exits = 0)]
fn there_is_room_for_so_many_alarms_and_sleep_works_all_the_same() {
    let late = Instant::now() + Duration::from_secs(1000);
    for _ in 0..timer::MAX_ALARMS {
        timer::at(late, |_| {}).expect("there is room");
    }
    assert_eq!(timer::at(late, |_| {}), Err(timer::TooManyAlarms));
    let start = Instant::now();
    sleep(Duration::from_millis(2));
    assert!(start.elapsed() >= Duration::from_millis(2));
}

#[guest_test(cpus = 2)]
fn every_cpu_sleeps_by_its_own_timer() {
    interrupts::enable();
    let other = CpuId::new(1).expect("there are two");
    let start = Instant::now();
    let asleep = spawn_on(other, move || {
        // Longer and shorter than the first CPU, in turn: neither may rely on the other's interrupts.
        sleep_until(start + Duration::from_millis(150));
        sleep_until(start + Duration::from_millis(450));
        Instant::now()
    });
    sleep_until(start + Duration::from_millis(300));
    assert!(Instant::now() >= start + Duration::from_millis(300));
    assert!(asleep.join() >= start + Duration::from_millis(450));
}
