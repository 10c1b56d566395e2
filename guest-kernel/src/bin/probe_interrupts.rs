//! The accomplice of the host's tests of interrupts: waits, sleeps, counts, and misuses the controllers.
//!
//! It is a program of its own, because being linked with interrupts makes its machine another one: the probe's would no
//! longer end when it halts. The first argument names the deed, further ones are its own.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use guest_kernel::cpu::{apic, halt, ioapic, msr, vectors};
use guest_kernel::exceptions::{self, Vector};
use guest_kernel::interrupts::{self, BUTTON, TICK, Trigger};
use guest_kernel::time::{Instant, sleep, timer};
use guest_kernel::{arguments, entry, print, println, task};
use shared_abi::interrupts as contract;

entry!(main);

/// All deeds, by name.
const DEEDS: &[(&str, fn())] = &[
    ("sleep", sleep_for),
    ("hundred-ticks", tick_a_hundred_times),
    ("wait", || interrupts::wait_while(|| true)),
    ("halt", halt_with_interrupts_off),
    ("presses", count_presses),
    ("ticks", count_ticks),
    ("level", take_a_level),
    ("masked-edge", miss_an_edge),
    ("message", take_a_message),
    ("unexpected", take_an_unexpected_one),
    ("input", read_and_tick),
    ("misuse", misuse),
    ("misuse-msrs", misuse_msrs),
];

fn main() {
    let name = arguments().next().unwrap_or("list");
    match DEEDS.iter().find(|(own, _)| *own == name) {
        Some((_, deed)) => deed(),
        None => DEEDS.iter().for_each(|(name, _)| println!("{name}")),
    }
}

/// The number that stands behind the deed's name, in decimal.
fn number() -> u64 {
    arguments().nth(1).and_then(|word| word.parse().ok()).expect("the deed wants a number")
}

/// Sleeps for so many milliseconds, and says how long that was.
fn sleep_for() {
    let start = Instant::now();
    sleep(Duration::from_millis(number()));
    println!("{}", start.elapsed().as_micros());
}

/// Ticks every millisecond, and says in how many microseconds a hundred ticks came.
fn tick_a_hundred_times() {
    let tick = |_: &mut exceptions::Frame| {
        COUNT.fetch_add(1, Ordering::Relaxed);
    };
    timer::every(Duration::from_millis(1), tick).expect("no alarm is set yet");
    interrupts::wait_while(|| count() == 0);
    let (first, start) = (count(), Instant::now());
    interrupts::wait_while(|| count() < first + 100);
    println!("{}", start.elapsed().as_micros());
}

fn halt_with_interrupts_off() {
    halt::halt_forever()
}

/// Interrupts so far.
static COUNT: AtomicU64 = AtomicU64::new(0);

fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// A line that no device of the contract has.
const SPARE_PIN: u8 = 20;

/// Prints a dot for each press of the button, until there are so many.
fn count_presses() {
    let wanted = number();
    interrupts::on_pin(BUTTON, Trigger::Edge, |_| {
        COUNT.fetch_add(1, Ordering::Relaxed);
        print!(".");
    });
    println!("ready");
    interrupts::wait_while(|| count() < wanted);
}

/// Counts the ticks of a time, in milliseconds.
fn count_ticks() {
    interrupts::on_pin(TICK, Trigger::Edge, |_| {
        COUNT.fetch_add(1, Ordering::Relaxed);
    });
    println!("ready");
    sleep(Duration::from_millis(number()));
    println!("{}", count());
}

/// Prints a dot for each interrupt of a line that stays asserted; masks it after so many.
fn take_a_level() {
    interrupts::on_pin(SPARE_PIN, Trigger::Level, |_| {
        if COUNT.fetch_add(1, Ordering::Relaxed) + 1 == number() {
            interrupts::set_masked(SPARE_PIN, true);
        }
    });
    println!("ready");
    interrupts::wait_while(|| count() < number());
    sleep(Duration::from_millis(5));
    println!("{} while it was asserted", count());
    // The host takes the level back when it reads this.
    sleep(Duration::from_millis(100));
    interrupts::set_masked(SPARE_PIN, false);
    sleep(Duration::from_millis(5));
    println!("{} in all", count());
}

/// Masks a line that is edge-triggered while the host presses it, and lets it through again.
fn miss_an_edge() {
    interrupts::on_pin(BUTTON, Trigger::Edge, |_| {
        COUNT.fetch_add(1, Ordering::Relaxed);
    });
    interrupts::set_masked(BUTTON, true);
    println!("masked");
    sleep(Duration::from_millis(100));
    interrupts::set_masked(BUTTON, false);
    sleep(Duration::from_millis(5));
    println!("{} of the masked one", count());
    interrupts::wait_while(|| count() == 0);
    println!("{} of the other", count());
}

/// Waits for a message by a vector of its own.
fn take_a_message() {
    interrupts::on(vectors::FREE, |_| {
        COUNT.fetch_add(1, Ordering::Relaxed);
    });
    interrupts::enable();
    println!("ready");
    interrupts::wait_while(|| count() == 0);
    println!("{}", count());
}

/// Waits until something came that nobody handles.
fn take_an_unexpected_one() {
    interrupts::enable();
    println!("ready");
    interrupts::wait_while(|| interrupts::unexpected() == 0);
    println!("it goes on");
}

/// One task reads what is typed, another one ticks meanwhile.
fn read_and_tick() {
    task::spawn(async {
        let mut buffer = [0; 64];
        loop {
            let size = task::read_input(&mut buffer).await.expect("the host answers");
            let typed = buffer.get(..size).and_then(|typed| core::str::from_utf8(typed).ok());
            println!("typed: {:?}, after {} ticks", typed.unwrap_or("nonsense"), count());
            if size == 0 {
                DONE.store(true, Ordering::Relaxed);
                break;
            }
        }
    });
    task::spawn(async {
        while !DONE.load(Ordering::Relaxed) {
            task::sleep(Duration::from_millis(2)).await;
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
    });
    println!("ready");
    task::run();
}

/// Whether the input has ended.
static DONE: AtomicBool = AtomicBool::new(false);

/// Reads and writes where the controllers are, at places and with values that a number makes up.
fn misuse() {
    apic::enable_as(apic::Mode::XApic);
    let _ = ioapic::pin_count();
    let mut next = random();
    for _ in 0..500 {
        let page = [contract::LOCAL_APIC, contract::IO_APIC][next() as usize % 2];
        let place = page.0 + (next() & 0xFF8);
        let (value, what) = (next(), next() % 8);
        // SAFETY: None: this is the crime. Both pages are devices, and no memory of ours.
        unsafe {
            match what {
                0 => drop((place as *const u8).read_volatile()),
                1 => drop((place as *const u64).read_volatile()),
                2 => (place as *mut u8).write_volatile(value as u8),
                3 => (place as *mut u16).write_volatile(value as u16),
                4 => (place as *mut u64).write_volatile(value),
                _ => (place as *mut u32).write_volatile(value as u32),
            }
        }
    }
    println!("still here");
}

/// Writes to the registers of an x2APIC, and reads them, as a number makes up; what the CPU refuses is passed over.
fn misuse_msrs() {
    interrupts::enable();
    exceptions::on(Vector::GeneralProtection, |frame| {
        // SAFETY: Continues behind `rdmsr` or `wrmsr`, which are two bytes long; the values mean nothing to anybody.
        unsafe { frame.registers().rip += 2 };
        exceptions::Next::Resume
    });
    let mut next = random();
    for _ in 0..500 {
        let register = 0x800 + (next() % 0x50) as u32;
        // Small numbers have the better chance to be taken.
        let value = next() >> (next() % 64);
        if next().is_multiple_of(4) {
            let _ = msr::read(register);
        } else {
            // SAFETY: None: this is the crime. The registers are those of the interrupt controller.
            unsafe { msr::write(register, value) };
        }
    }
    println!("still here");
}

/// Numbers that look like chance and are the same for the same seed (xorshift64).
fn random() -> impl FnMut() -> u64 {
    let mut random = number().wrapping_mul(2) + 1;
    move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    }
}
