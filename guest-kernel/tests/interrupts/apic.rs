//! The local APIC in both modes, its timer, and vectors that nobody wants.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use guest_kernel::cpu::apic::{self, Command, Destination, Mode, Repeat};
use guest_kernel::cpu::{cpuid, flags, vectors};
use guest_kernel::sync::Mutex;
use guest_kernel::time::{Instant, sleep};
use guest_kernel::{guest_test, interrupts};

/// Raises the interrupt of `vector` on this CPU.
fn raise(vector: u8) {
    apic::send(Command::Interrupt(vector), Destination::Own);
}

#[guest_test(max_exits = 0)]
fn the_mode_is_the_best_that_the_cpu_has() {
    interrupts::enable();
    let best = if cpuid::has_x2apic() { Mode::X2Apic } else { Mode::XApic };
    assert_eq!(apic::mode(), Some(best));
    assert_eq!(apic::id(), 0);
}

#[guest_test(max_exits = 0)]
fn the_registers_can_be_memory() {
    static CAME: AtomicU64 = AtomicU64::new(0);
    apic::enable_as(Mode::XApic);
    interrupts::enable();
    interrupts::on(vectors::FREE, |_| {
        CAME.fetch_add(1, Ordering::Relaxed);
    });
    raise(vectors::FREE);
    interrupts::wait_while(|| CAME.load(Ordering::Relaxed) < 1);
    assert_eq!((apic::mode(), apic::id()), (Some(Mode::XApic), 0));
    sleep(Duration::from_millis(1));
}

#[guest_test]
fn an_interrupt_nobody_handles_is_told_of_and_the_program_goes_on() {
    interrupts::enable();
    for times in 1..=3 {
        raise(0x45);
        interrupts::wait_while(|| interrupts::unexpected() < times);
    }
}

#[guest_test(max_exits = 0)]
fn a_spurious_interrupt_is_counted_and_holds_nothing_up() {
    interrupts::enable();
    raise(vectors::SPURIOUS);
    interrupts::wait_while(|| interrupts::spurious() < 1);
    sleep(Duration::from_micros(100));
    assert_eq!((interrupts::spurious(), interrupts::unexpected()), (1, 0));
}

#[guest_test(max_exits = 0)]
fn the_timer_repeats_by_itself_in_periodic_mode() {
    static TIMES: AtomicU64 = AtomicU64::new(0);
    interrupts::enable();
    interrupts::on(vectors::TIMER, |_| {
        TIMES.fetch_add(1, Ordering::Relaxed);
    });
    apic::start_timer(1_000_000, Repeat::Forever);
    interrupts::wait_while(|| TIMES.load(Ordering::Relaxed) < 5);
    apic::start_timer(0, Repeat::Forever);
    // One may have been on its way.
    let seen = TIMES.load(Ordering::Relaxed);
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(5) {}
    assert!(TIMES.load(Ordering::Relaxed) <= seen + 1);
}

#[guest_test(max_exits = 0)]
fn a_lock_holds_interrupts_off_and_lets_them_in_when_it_is_free() {
    static COUNTER: Mutex<u64> = Mutex::new(0);
    interrupts::enable();
    interrupts::on(vectors::FREE, |_| *COUNTER.lock() += 1);
    let guard = COUNTER.lock();
    raise(vectors::FREE);
    assert!(!flags::interrupts_enabled());
    assert_eq!(*guard, 0, "the handler waits");
    drop(guard);
    interrupts::wait_while(|| *COUNTER.lock() == 0);
}

#[guest_test(max_exits = 0)]
fn of_two_that_wait_the_higher_vector_comes_first() {
    static ORDER: Mutex<[u8; 2]> = Mutex::new([0; 2]);
    fn note(vector: u8) {
        let mut order = ORDER.lock();
        let place = usize::from(order[0] != 0);
        order[place] = vector;
    }
    interrupts::enable();
    interrupts::on(0x41, |_| note(0x41));
    interrupts::on(0x71, |_| note(0x71));
    let before = flags::disable_interrupts();
    raise(0x41);
    raise(0x71);
    flags::restore_interrupts(before);
    interrupts::wait_while(|| ORDER.lock()[1] == 0);
    assert_eq!(*ORDER.lock(), [0x71, 0x41]);
}
