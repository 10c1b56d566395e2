//! Many CPUs, started by hand: without descriptor tables and on stacks at the end of RAM. What they do is on purpose raw.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_kernel::cpu::{halt, port};
use guest_kernel::hypercall::{self, Answer, Hypercall, HypercallError, call};
use guest_kernel::prelude::*;
use guest_kernel::sync::Barrier;
use guest_kernel::{Gva, boot_info, mark, power, println, smp};
use shared_abi::hypercall::LogLevel;

use crate::calls::{Chance, by_chance};
use crate::{Deed, number, words};

pub(crate) const DEEDS: &[Deed] = &[
    ("cpus-spin", || spin_all()),
    ("cpus-halt", || halt_all()),
    ("cpus-count", count_together),
    ("cpus-die", || die_on(number())),
    ("cpus-exit", || exit_on(number())),
    ("cpus-idle", || idle_all()),
    ("cpus-restart", restart),
    ("cpus-calls", call_on_both),
    ("cpus-hostile", || call_from_all()),
    ("cpus-read", || read_on_all()),
    ("cpus-lines", print_on_all),
    ("cpus-duel", duel),
    ("start-cpu", start_wildly),
];

/// A CPU's first function. The host calls it, in a way: with the CPU's number.
type Start = extern "C" fn(u64) -> !;

/// Starts the CPU `cpu` on a stack of its own.
fn start(cpu: u64, function: Start) -> Answer {
    const STACK_SIZE: u64 = 64 << 10;
    let end = boot_info().ram[0].end - cpu * STACK_SIZE;
    call(Hypercall::StartCpu {
        cpu,
        entry_gva: Gva(function as usize as u64),
        // As if a call had pushed a return address (System V AMD64 ABI, 3.2.2).
        stack_gva: Gva(end - 8),
        argument: cpu,
    })
}

/// Starts all CPUs but the first.
fn start_all(function: Start) {
    for cpu in 1..boot_info().vcpu_count {
        start(cpu, function).expect("a CPU that was never started");
    }
}

/// How many of the others have come so far.
static ARRIVED: AtomicU64 = AtomicU64::new(0);

fn await_others() {
    while ARRIVED.load(Ordering::Acquire) < boot_info().vcpu_count - 1 {
        core::hint::spin_loop();
    }
}

extern "C" fn spin(_: u64) -> ! {
    ARRIVED.fetch_add(1, Ordering::Release);
    loop {
        core::hint::spin_loop();
    }
}

extern "C" fn halt(_: u64) -> ! {
    ARRIVED.fetch_add(1, Ordering::Release);
    halt::halt_forever()
}

fn spin_all() -> ! {
    start_all(spin);
    await_others();
    println!("all spin");
    spin(0)
}

/// The first halts last or in between.
fn halt_all() -> ! {
    start_all(halt);
    halt::halt_forever()
}

/// The others are started and halt; the first spins.
fn idle_all() -> ! {
    start_all(halt);
    await_others();
    println!("the others are idle");
    spin(0)
}

/// Counted by all at once.
static COUNT: AtomicU64 = AtomicU64::new(0);
/// How far each counts.
const EACH: u64 = 100;

extern "C" fn count(cpu: u64) -> ! {
    for _ in 0..EACH {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
    halt(cpu)
}

fn count_together() {
    start_all(count);
    await_others();
    println!("{} CPUs have counted to {}", ARRIVED.load(Ordering::Relaxed), COUNT.load(Ordering::Relaxed));
}

/// Dies on the CPU `cpu`, which has no handlers; the others spin.
fn die_on(cpu: u64) -> ! {
    extern "C" fn die(_: u64) -> ! {
        guest_kernel::cpu::provoke::invalid_opcode();
        halt::halt_forever()
    }
    for other in (1..boot_info().vcpu_count).filter(|other| *other != cpu) {
        start(other, spin).expect("a CPU that was never started");
    }
    start(cpu, die).expect("a CPU that was never started");
    spin(0)
}

/// Ends the run on the CPU `cpu`, with that number.
fn exit_on(cpu: u64) -> ! {
    extern "C" fn exit(cpu: u64) -> ! {
        power::exit(cpu as u32)
    }
    start(cpu, exit).expect("a CPU that was never started");
    spin(0)
}

/// A CPU is started, halts, and is started again; meanwhile it cannot be.
fn restart() {
    for round in 0..100_u64 {
        let answer = loop {
            // It says that it has arrived before it halts.
            match start(1, halt) {
                Err(HypercallError::AlreadyExists) if round > 0 => core::hint::spin_loop(),
                answer => break answer,
            }
        };
        assert_eq!(answer, Ok(0), "round {round}");
        while ARRIVED.load(Ordering::Acquire) <= round {
            core::hint::spin_loop();
        }
    }
    println!("started {} times", ARRIVED.load(Ordering::Relaxed));
}

/// `StartCpu` with the four numbers behind the deed's name, and what became of it.
fn start_wildly() {
    let mut numbers = words().skip(1).map(|word| word.parse::<u64>().expect("a number"));
    let mut next = || numbers.next().unwrap_or_default();
    let (cpu, entry_gva, stack_gva, argument) = (next(), Gva(next()), Gva(next()), next());
    println!("{:?}", call(Hypercall::StartCpu { cpu, entry_gva, stack_gva, argument }));
}

/// The second CPU does what a ledger tells of; the first waits for it.
fn call_on_both() {
    extern "C" fn second(cpu: u64) -> ! {
        let span = mark::span("the second CPU");
        let _ = hypercall::log(LogLevel::Info, "probe", "from the second CPU");
        drop(span);
        halt(cpu)
    }
    start(1, second).expect("a CPU that was never started");
    await_others();
    println!("both are done");
}

/// Every CPU makes calls by chance, from a seed of its own; the first ends the run after some.
fn call_from_all() -> ! {
    extern "C" fn other(cpu: u64) -> ! {
        ARRIVED.fetch_add(1, Ordering::Release);
        let mut chance = Chance(number() ^ (cpu + 1) << 32);
        loop {
            let _ = by_chance(&mut chance);
        }
    }
    start_all(other);
    await_others();
    let mut chance = Chance(number());
    for _ in 0..200 {
        let _ = by_chance(&mut chance);
    }
    power::exit(0)
}

/// All CPUs wait for input.
fn read_on_all() -> ! {
    extern "C" fn read(_: u64) -> ! {
        ARRIVED.fetch_add(1, Ordering::Release);
        loop {
            let (buffer_gva, buffer_size) = (Gva(0x1_0000), 1);
            let _ = call(Hypercall::ConsoleRead { buffer_gva, buffer_size, wait: true });
        }
    }
    start_all(read);
    await_others();
    port::outb(shared_abi::ports::DEBUG_CONSOLE, b'\n');
    read(0)
}

/// All CPUs print lines at once: short ones, and some that do not fit into the buffer of a line.
fn print_on_all() {
    let handles: Vec<_> = smp::cpus().map(|cpu| smp::spawn_on(cpu, print_lines)).collect();
    handles.into_iter().for_each(smp::JoinHandle::join);
}

fn print_lines() {
    static BARRIER: Barrier = Barrier::new(7);
    // The first CPU has done its part before the others are started.
    if smp::id() != smp::CpuId::FIRST {
        BARRIER.wait();
    }
    // Longer than the buffer, and not padded letter by letter: ring 0 is interpreted on some KVMs.
    let long = core::str::from_utf8(&[b'.'; 600]).expect("ASCII");
    let number = smp::id().number();
    for _ in 0..5 {
        println!("{number} is short");
        println!("{number}{long}{number}{long}{number}");
    }
}

/// Two CPUs try to start each other, again and again. Both run, so neither can be.
fn duel() {
    const ROUNDS: u64 = 300;
    extern "C" fn second(cpu: u64) -> ! {
        for _ in 0..ROUNDS {
            assert_eq!(start(0, halt), Err(HypercallError::AlreadyExists));
        }
        spin(cpu)
    }
    start(1, second).expect("a CPU that was never started");
    while ARRIVED.load(Ordering::Acquire) == 0 {
        assert_eq!(start(1, halt), Err(HypercallError::AlreadyExists));
    }
    println!("both have survived");
}
