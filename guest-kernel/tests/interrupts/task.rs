//! Tasks: they take turns, and nothing they wait for is missed.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use guest_kernel::alloc;
use guest_kernel::sync::Mutex;
use guest_kernel::time::{Instant, timer};
use guest_kernel::{guest_test, println, task};

#[guest_test(max_exits = 0)]
fn without_a_task_there_is_nothing_to_run() {
    task::run();
}

#[guest_test(prints = "1\n2\n1\n2\n1\n2\n")]
fn tasks_that_yield_take_turns() {
    for name in [1, 2] {
        task::spawn(async move {
            for _ in 0..3 {
                println!("{name}");
                task::yield_now().await;
            }
        });
    }
    task::run();
}

#[guest_test(max_exits = 0)]
fn those_that_sleep_wake_in_the_order_of_their_times() {
    static ORDER: Mutex<alloc::vec::Vec<u64>> = Mutex::new(alloc::vec::Vec::new());
    // Heap and timer start with their first use.
    task::spawn(task::sleep(Duration::from_millis(1)));
    task::run();
    // Later than it takes to set all of them, also on a busy host.
    let start = Instant::now() + Duration::from_millis(200);
    for ms in [9, 3, 6] {
        task::spawn(async move {
            task::sleep_until(start + Duration::from_millis(ms)).await;
            assert!(Instant::now() >= start + Duration::from_millis(ms));
            ORDER.lock().push(ms);
        });
    }
    task::run();
    assert_eq!(*ORDER.lock(), [3, 6, 9]);
}

#[guest_test(max_exits = 0)]
fn those_that_are_late_take_turns() {
    static ORDER: Mutex<alloc::vec::Vec<u64>> = Mutex::new(alloc::vec::Vec::new());
    let late = Instant::now();
    for name in [1, 2] {
        task::spawn(async move {
            for ms in 0..2 {
                task::sleep_until(late + Duration::from_nanos(10 * ms + name)).await;
                ORDER.lock().push(name);
            }
        });
    }
    task::run();
    assert_eq!(*ORDER.lock(), [1, 2, 1, 2]);
}

#[guest_test(max_exits = 0)]
fn a_task_may_spawn_others() {
    static DONE: AtomicU64 = AtomicU64::new(0);
    task::spawn(async {
        for _ in 0..10 {
            task::spawn(async {
                task::sleep(Duration::from_micros(100)).await;
                DONE.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    task::run();
    assert_eq!(DONE.load(Ordering::Relaxed), 10);
}

#[guest_test(max_exits = 0)]
fn what_a_task_holds_is_free_when_it_is_done() {
    let shared = Arc::new(());
    let own = Arc::clone(&shared);
    task::spawn(async move {
        task::sleep(Duration::from_millis(1)).await;
        drop(own);
    });
    assert_eq!(Arc::strong_count(&shared), 2);
    task::run();
    assert_eq!(Arc::strong_count(&shared), 1);
}

#[guest_test(max_exits = 0)]
fn more_may_sleep_than_there_are_alarms() {
    static DONE: AtomicU64 = AtomicU64::new(0);
    let moment = Instant::now() + Duration::from_millis(5);
    for _ in 0..timer::MAX_ALARMS + 5 {
        task::spawn(async move {
            task::sleep_until(moment).await;
            DONE.fetch_add(1, Ordering::Relaxed);
        });
    }
    task::run();
    assert_eq!(DONE.load(Ordering::Relaxed), timer::MAX_ALARMS as u64 + 5);
}

#[guest_test(prints = "0 bytes: the end\n")]
fn input_that_is_at_its_end_need_not_be_waited_for() {
    task::spawn(async {
        let mut buffer = [0; 16];
        println!("{} bytes: the end", task::read_input(&mut buffer).await.expect("the host answers"));
    });
    task::run();
}
