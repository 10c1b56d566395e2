//! Many CPUs, in machines with interrupt controllers: they start by INIT and SIPI, and interrupt one another.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use guest_kernel::exceptions::{self, Vector};
use guest_kernel::memory::paging::{AddressSpace, PageSize, Rights};
use guest_kernel::memory::{FREE_ADDRESSES, frames};
use guest_kernel::prelude::*;
use guest_kernel::smp::start::Way;
use guest_kernel::smp::work::spawn_by;
use guest_kernel::smp::{self, CpuId, JoinHandle, ipi, spawn_on};
use guest_kernel::sync::Barrier;
use guest_kernel::{Gva, cpu, guest_test, interrupts, time};

fn cpu(number: usize) -> CpuId {
    CpuId::new(number).expect("a number that a CPU can have")
}

/// Uses the controllers, so that the machine has some.
fn with_controllers() {
    interrupts::enable();
    assert_eq!(Way::of_this_machine(), Way::Sipi);
}

#[guest_test(cpus = 8)]
fn cpus_start_by_init_and_sipi() {
    with_controllers();
    let handles: Vec<_> = smp::cpus()
        .map(|cpu| spawn_by(cpu, Way::Sipi, || (smp::id().number(), cpu::apic::id())).expect("it starts"))
        .collect();
    let seen: Vec<_> = handles.into_iter().map(JoinHandle::join).collect();
    assert_eq!(
        seen,
        (0..8).map(|number| (number, number as u32)).collect::<Vec<_>>(),
        "numbers are APIC ids"
    );
}

#[guest_test(cpus = 64)]
fn sixty_four_cpus_start_by_init_and_sipi() {
    with_controllers();
    let handles: Vec<_> = smp::cpus().map(|cpu| spawn_on(cpu, || smp::id().number())).collect();
    assert_eq!(handles.into_iter().map(JoinHandle::join).sum::<usize>(), 63 * 64 / 2);
}

#[guest_test(cpus = 4)]
fn the_host_may_start_a_cpu_all_the_same() {
    with_controllers();
    assert_eq!(spawn_by(cpu(1), Way::Direct, smp::id).expect("it starts").join(), cpu(1));
    assert_eq!(spawn_by(cpu(2), Way::Sipi, smp::id).expect("it starts").join(), cpu(2));
    assert_eq!(spawn_on(cpu(1), smp::id).join(), cpu(1), "and it wakes as the other does");
}

#[guest_test(cpus = 2)]
fn an_idle_cpu_is_woken_again_and_again() {
    with_controllers();
    for round in 0..200 {
        assert_eq!(spawn_on(cpu(1), move || round + smp::id().number()).join(), round + 1);
    }
}

#[guest_test(cpus = 4)]
fn a_message_interrupts_the_cpu_that_it_is_for() {
    static CALLED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
    static BARRIER: Barrier = Barrier::new(4);
    with_controllers();
    interrupts::on(ipi::FREE, |_| {
        CALLED[smp::id().number()].fetch_add(1, Ordering::SeqCst);
    });
    let counts = || CALLED.each_ref().map(|count| count.load(Ordering::SeqCst));
    let handles: Vec<_> = smp::others()
        .map(|cpu| {
            spawn_on(cpu, || {
                interrupts::enable();
                BARRIER.wait();
                BARRIER.wait();
            })
        })
        .collect();
    BARRIER.wait();
    ipi::send(cpu(2), ipi::FREE);
    while counts() != [0, 0, 1, 0] {
        smp::relax();
    }
    ipi::broadcast(ipi::FREE);
    while counts() != [0, 1, 2, 1] {
        smp::relax();
    }
    BARRIER.wait();
    handles.into_iter().for_each(JoinHandle::join);
}

/// These CPUs look at nothing of the kernel's: only a message can make them forget.
#[guest_test(cpus = 4)]
fn a_mapping_that_is_gone_is_gone_for_cpus_that_are_busy() {
    const PAGE: Gva = Gva(FREE_ADDRESSES);
    static READ: AtomicU64 = AtomicU64::new(0);
    static FAULTED: AtomicU64 = AtomicU64::new(0);
    with_controllers();
    let frame = frames::allocate().expect("a frame is free");
    AddressSpace::kernel().map_frame(PAGE, frame, Rights::READ_WRITE).expect("nothing is there");
    exceptions::on(Vector::PageFault, |frame| {
        FAULTED.fetch_add(1, Ordering::SeqCst);
        frame.skip()
    });
    let handles: Vec<_> = smp::others()
        .map(|cpu| {
            spawn_on(cpu, || {
                interrupts::enable();
                let _ = cpu::provoke::read(PAGE);
                READ.fetch_add(1, Ordering::SeqCst);
                while FAULTED.load(Ordering::SeqCst) == 0 {
                    let _ = cpu::provoke::read(PAGE);
                }
            })
        })
        .collect();
    while READ.load(Ordering::SeqCst) < 3 {
        core::hint::spin_loop();
    }
    // SAFETY: Nobody has a reference to the page.
    let frame = unsafe { AddressSpace::kernel().unmap(PAGE, PageSize::Size4K) }.expect("it was mapped");
    handles.into_iter().for_each(JoinHandle::join);
    drop(frame);
    assert!(FAULTED.load(Ordering::SeqCst) >= 1);
}

#[guest_test(cpus = 3)]
fn whoever_waits_for_work_halts_meanwhile() {
    with_controllers();
    let sleeper = spawn_on(cpu(1), || {
        let until = time::Instant::now() + Duration::from_millis(30);
        while time::Instant::now() < until {
            smp::relax();
        }
        7
    });
    let waiter = spawn_on(cpu(2), move || sleeper.join());
    assert_eq!(waiter.join(), 7);
}

#[guest_test(cpus = 2, should_fault = PageFault, address = 0x8)]
fn a_fault_on_a_cpu_that_came_by_sipi_ends_the_run() {
    with_controllers();
    let _ = spawn_on(cpu(1), || cpu::provoke::read(Gva(8))).join();
}
