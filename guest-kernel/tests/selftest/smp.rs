//! Many CPUs, in machines without interrupt controllers: the VMM starts them.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest_kernel::cpu::provoke;
use guest_kernel::memory::paging::{AddressSpace, PageSize, Rights};
use guest_kernel::memory::{FREE_ADDRESSES, frames};
use guest_kernel::prelude::*;
use guest_kernel::smp::start::{StartError, Way};
use guest_kernel::smp::work::spawn_by;
use guest_kernel::smp::{self, CpuId, JoinHandle, MAX_CPUS, PerCpu, spawn_on};
use guest_kernel::sync::{Barrier, Mutex, Once};
use guest_kernel::{Gva, guest_test};

/// Has every CPU execute `work`, and waits for all.
fn on_all<T: Send + 'static>(work: fn(CpuId) -> T) -> Vec<T> {
    let handles: Vec<_> = smp::cpus().map(|cpu| spawn_on(cpu, move || work(cpu))).collect();
    handles.into_iter().map(JoinHandle::join).collect()
}

#[guest_test(cpus = 8)]
fn every_cpu_knows_its_number() {
    assert_eq!(smp::count(), 8);
    assert_eq!(on_all(|_| smp::id().number()), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[guest_test(cpus = 64)]
fn sixty_four_cpus_do_their_part() {
    let sum: usize = on_all(|cpu| cpu.number()).into_iter().sum();
    assert_eq!(sum, 63 * 64 / 2);
}

#[guest_test]
fn one_cpu_does_its_work_at_once() {
    assert_eq!(on_all(|cpu| cpu.number()), [0]);
    let error = smp::try_spawn_on(CpuId::new(1).expect("a number"), || ()).expect_err("there is one CPU");
    assert_eq!(error, StartError::NoSuchCpu(CpuId::new(1).expect("a number")));
}

#[guest_test(cpus = 8, timeout_ms = 120_000)]
fn eight_cpus_count_to_eight_hundred_thousand() {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    on_all(|_| increment(&COUNT, 100_000));
    assert_eq!(COUNT.load(Ordering::Relaxed), 800_000);
}

/// Increments `count` so many times, each by one locked instruction: three instructions a turn, where a KVM interprets
/// the kernel, and Rust's loop without optimisation would have a hundred.
#[cfg(target_os = "none")]
fn increment(count: &AtomicU64, times: u64) {
    // SAFETY: The word is an atomic's, and accessed as one.
    unsafe {
        core::arch::asm!(
            "2: lock inc qword ptr [{count}]",
            "dec {times}",
            "jnz 2b",
            count = in(reg) count.as_ptr(),
            times = inout(reg) times => _,
            options(nostack),
        );
    }
}

/// Increments `count` so many times.
#[cfg(not(target_os = "none"))]
fn increment(count: &AtomicU64, times: u64) {
    count.fetch_add(times, Ordering::Relaxed);
}

#[guest_test(cpus = 8, timeout_ms = 120_000)]
fn a_lock_is_had_by_one_cpu_at_a_time() {
    static COUNT: Mutex<u64> = Mutex::new(0);
    on_all(|_| {
        for _ in 0..500 {
            let mut count = COUNT.lock();
            let before = *count;
            core::hint::black_box(&mut count);
            *count = before + 1;
        }
    });
    assert_eq!(*COUNT.lock(), 8 * 500);
}

#[guest_test(cpus = 8)]
fn a_sum_in_parts_is_the_sum() {
    const END: u64 = 4_000;
    let parts = on_all(|cpu| {
        let count = smp::count() as u64;
        (0..END).filter(|n| n % count == cpu.number() as u64).sum::<u64>()
    });
    assert_eq!(parts.into_iter().sum::<u64>(), END * (END - 1) / 2);
}

#[guest_test(cpus = 4)]
fn nobody_passes_a_barrier_before_the_last() {
    static BARRIER: Barrier = Barrier::new(4);
    static ARRIVED: AtomicUsize = AtomicUsize::new(0);
    let last = on_others_and_me(|| {
        let mut last = 0;
        for round in 1..=20 {
            ARRIVED.fetch_add(1, Ordering::SeqCst);
            last += usize::from(BARRIER.wait());
            assert!(ARRIVED.load(Ordering::SeqCst) >= 4 * round);
            BARRIER.wait();
        }
        last
    });
    assert_eq!(last.into_iter().sum::<usize>(), 20, "one was last in each round");
}

/// Has all other CPUs begin `work`, then does it, then waits.
fn on_others_and_me<T: Send + 'static>(work: fn() -> T) -> Vec<T> {
    let handles: Vec<_> = smp::others().map(|cpu| spawn_on(cpu, work)).collect();
    let own = work();
    handles.into_iter().map(JoinHandle::join).chain([own]).collect()
}

#[guest_test(cpus = 8)]
fn what_all_want_once_is_made_once() {
    static MADE: Once<u64> = Once::new();
    static TIMES: AtomicU64 = AtomicU64::new(0);
    let seen = on_others_and_me(|| *MADE.call_once(|| TIMES.fetch_add(1, Ordering::SeqCst) + 7));
    assert_eq!((seen, TIMES.load(Ordering::SeqCst)), (vec![7; 8], 1));
}

#[guest_test(cpus = 4)]
fn each_cpu_has_its_own() {
    static OWN: PerCpu<AtomicU64> = PerCpu::new([const { AtomicU64::new(0) }; MAX_CPUS]);
    on_all(|cpu| OWN.mine().store(cpu.number() as u64 + 1, Ordering::Relaxed));
    let seen: Vec<_> = OWN.iter().map(|own| own.load(Ordering::Relaxed)).collect();
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[guest_test(cpus = 3)]
fn work_for_a_cpu_is_done_in_its_order() {
    static ORDER: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let cpu = CpuId::new(2).expect("a number");
    let handles: Vec<_> = (0..20).map(|number| spawn_on(cpu, move || ORDER.lock().push(number))).collect();
    handles.into_iter().for_each(JoinHandle::join);
    assert!(ORDER.lock().iter().copied().eq(0..20));
}

#[guest_test(cpus = 2)]
fn an_idle_cpu_takes_new_work_again_and_again() {
    let cpu = CpuId::new(1).expect("a number");
    for round in 0..50 {
        assert_eq!(spawn_on(cpu, move || round + smp::id().number()).join(), round + 1);
    }
}

#[guest_test(cpus = 4)]
fn work_may_give_work_to_others() {
    let chain = spawn_on(CpuId::new(1).expect("a number"), || {
        spawn_on(CpuId::new(2).expect("a number"), || {
            spawn_on(CpuId::new(3).expect("a number"), || smp::id().number()).join() * 10
        })
        .join()
            * 10
    });
    assert_eq!(chain.join(), 300);
}

#[guest_test(cpus = 2)]
fn without_controllers_a_cpu_is_started_by_the_host() {
    assert_eq!(Way::of_this_machine(), Way::Direct);
    let handle = spawn_by(CpuId::new(1).expect("a number"), Way::Direct, smp::id);
    assert_eq!(handle.expect("it starts").join().number(), 1);
}

/// A CPU that waits in one of the kernel's loops forgets a mapping when it is asked; there is nothing to interrupt it by.
#[guest_test(cpus = 4)]
fn a_mapping_that_is_gone_is_gone_for_all_cpus() {
    const PAGE: Gva = Gva(FREE_ADDRESSES);
    static BARRIER: Barrier = Barrier::new(4);
    let frame = frames::allocate().expect("a frame is free");
    AddressSpace::kernel().map_frame(PAGE, frame, Rights::READ_WRITE).expect("nothing is there");
    let handles: Vec<_> = smp::others()
        .map(|cpu| {
            spawn_on(cpu, || {
                let _ = provoke::read(PAGE);
                BARRIER.wait();
                BARRIER.wait();
                provoke::read(PAGE)
            })
        })
        .collect();
    BARRIER.wait();
    // SAFETY: Nobody has a reference to the page.
    let frame = unsafe { AddressSpace::kernel().unmap(PAGE, PageSize::Size4K) }.expect("it was mapped");
    drop(frame);
    guest_kernel::exceptions::on(guest_kernel::exceptions::Vector::PageFault, |frame| {
        FAULTS.fetch_add(1, Ordering::SeqCst);
        frame.skip()
    });
    BARRIER.wait();
    handles.into_iter().for_each(|handle| assert_eq!(handle.join(), 0, "it was skipped"));
    assert_eq!(FAULTS.load(Ordering::SeqCst), 3);
}

static FAULTS: AtomicU64 = AtomicU64::new(0);

#[guest_test(cpus = 4, should_fault = PageFault, address = 0x8)]
fn a_fault_on_any_cpu_ends_the_run() {
    let _ = spawn_on(CpuId::new(3).expect("a number"), || provoke::read(Gva(8))).join();
}

#[guest_test(cpus = 4, should_panic, prints = "from CPU 2")]
fn a_panic_on_any_cpu_ends_the_run() {
    spawn_on(CpuId::new(2).expect("a number"), || panic!("from {}", smp::id())).join()
}
