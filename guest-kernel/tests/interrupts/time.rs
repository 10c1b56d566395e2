//! Clocks, sleep, alarms.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use guest_kernel::time::{Instant, clock, sleep, timer};
use guest_kernel::{guest_test, hypercall, println};

#[guest_test]
fn the_clock_goes_as_fast_as_the_hosts() {
    let (start, host_start) = (Instant::now(), hypercall::monotonic_ns());
    sleep(Duration::from_millis(50));
    let (took, host_took) = (start.elapsed(), Duration::from_nanos(hypercall::monotonic_ns() - host_start));
    println!("{took:?} by {:?}, {host_took:?} by the host's clock", clock::source());
    let difference = took.abs_diff(host_took);
    assert!(difference < host_took / 100 + Duration::from_micros(500), "{difference:?}");
}

#[guest_test]
fn sleep_halts_and_takes_as_long_as_it_should() {
    for ms in [0, 1, 5, 20] {
        let start = Instant::now();
        sleep(Duration::from_millis(ms));
        let took = start.elapsed();
        println!("{ms} ms: {took:?}");
        assert!(took >= Duration::from_millis(ms));
    }
}

#[guest_test]
fn an_alarm_that_repeats_comes_again_and_again() {
    static TIMES: AtomicU64 = AtomicU64::new(0);
    let id = timer::every(Duration::from_millis(1), |_| {
        TIMES.fetch_add(1, Ordering::Relaxed);
    });
    guest_kernel::interrupts::wait_while(|| TIMES.load(Ordering::Relaxed) < 10);
    timer::cancel(id.expect("the first alarm"));
}
