//! Work for CPUs: `spawn_on`, as `std::thread::spawn` on a CPU of your choice.
//!
//! Each CPU has a queue. Whoever puts work into the queue of a CPU that is idle or was never started has it run; a CPU
//! that finds its queue empty becomes idle. Both happen under the queue's lock, so no work is forgotten:
//!
//! ```text
//! phase     Unstarted ──► Busy ──► Idle ──► Busy …
//!               submit: start it     submit: wake it, or start it anew
//! ```
//!
//! Work runs to its end; nothing interrupts it but interrupts. A panic ends the run, as everywhere, and the host says on
//! which CPU it was.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::start::{self, StartError, Way, has_controllers};
use super::{CpuId, MAX_CPUS, PerCpu, id, ipi, relax, shootdown};
use crate::cpu::{flags, halt};
use crate::sync::Mutex;

/// Something to do.
type Job = Box<dyn FnOnce() + Send>;

/// What a CPU is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has started it.
    Unstarted,
    /// It works, or is on its way to its work.
    Busy,
    /// It has nothing to do.
    Idle,
}

struct Queue {
    jobs: VecDeque<Job>,
    phase: Phase,
}

static QUEUES: PerCpu<Mutex<Queue>> =
    PerCpu::new([const { Mutex::new(Queue { jobs: VecDeque::new(), phase: Phase::Unstarted }) }; MAX_CPUS]);

/// Has `cpu` execute `work`, and gives a handle to what comes of it. The CPU is started if it was not. On the CPU that
/// calls this, `work` is done at once.
///
/// # Panics
/// When the CPU cannot be started, as there is none of that number.
pub fn spawn_on<T, F>(cpu: CpuId, work: F) -> JoinHandle<T>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match try_spawn_on(cpu, work) {
        Ok(handle) => handle,
        Err(error) => panic!("{error}"),
    }
}

/// As [`spawn_on`], for those who can do without the CPU.
///
/// # Errors
/// Why it does not start.
pub fn try_spawn_on<T, F>(cpu: CpuId, work: F) -> Result<JoinHandle<T>, StartError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    spawn_by(cpu, Way::of_this_machine(), work)
}

/// As [`try_spawn_on`]; a CPU that was never started is started this way.
///
/// # Errors
/// Why it does not start.
pub fn spawn_by<T, F>(cpu: CpuId, way: Way, work: F) -> Result<JoinHandle<T>, StartError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let packet = Arc::new(Packet::new());
    let theirs = Arc::clone(&packet);
    let job = move || theirs.fill(work());
    if cpu == id() {
        job();
    } else {
        submit(cpu, way, Box::new(job))?;
    }
    Ok(JoinHandle { packet })
}

/// Puts a job into a CPU's queue, and sees to it that the CPU comes to it.
fn submit(cpu: CpuId, way: Way, job: Job) -> Result<(), StartError> {
    let mut queue = QUEUES.of(cpu).lock();
    queue.jobs.push_back(job);
    let before = core::mem::replace(&mut queue.phase, Phase::Busy);
    drop(queue);
    let started = match before {
        Phase::Busy => Ok(()),
        Phase::Unstarted => start::start(cpu, way),
        Phase::Idle if has_controllers() => {
            ipi::wake(cpu);
            Ok(())
        }
        Phase::Idle => start::start(cpu, Way::Direct),
    };
    if started.is_err() {
        let mut queue = QUEUES.of(cpu).lock();
        queue.phase = before;
        let job = queue.jobs.pop_back();
        drop(queue);
        drop(job);
    }
    started
}

/// What a CPU does from its start on: its work, and in between nothing.
pub(super) fn serve(cpu: CpuId) -> ! {
    loop {
        let mut queue = QUEUES.of(cpu).lock();
        let job = queue.jobs.pop_front();
        if job.is_none() {
            queue.phase = Phase::Idle;
            shootdown::go_offline();
        }
        drop(queue);
        match job {
            Some(job) => job(),
            None => rest(cpu),
        }
        shootdown::serve();
    }
}

/// Halts until there is work. Without controllers that is for good: the next work starts this CPU anew.
fn rest(cpu: CpuId) {
    if !has_controllers() {
        halt::halt_forever();
    }
    loop {
        // With interrupts off, so that a message between the look and the halt is not missed.
        flags::disable_interrupts();
        if QUEUES.of(cpu).lock().phase == Phase::Busy {
            break;
        }
        halt::wait_for_interrupt();
    }
    shootdown::come_online();
    flags::restore_interrupts(flags::Interrupts::Enabled);
}

/// Where work leaves what came of it.
struct Packet<T> {
    value: Mutex<Option<T>>,
    is_done: AtomicBool,
    /// The CPU that has halted until it is done, plus 1; 0 while none has.
    waiter: AtomicUsize,
}

impl<T> Packet<T> {
    fn new() -> Self {
        Self { value: Mutex::new(None), is_done: AtomicBool::new(false), waiter: AtomicUsize::new(0) }
    }

    fn fill(&self, value: T) {
        *self.value.lock() = Some(value);
        self.is_done.store(true, Ordering::SeqCst);
        if let Some(waiter) = self.waiter.load(Ordering::SeqCst).checked_sub(1).and_then(CpuId::new) {
            ipi::wake(waiter);
        }
    }

    fn is_done(&self) -> bool {
        self.is_done.load(Ordering::SeqCst)
    }

    /// Waits; halted where that can end, which leaves the host's CPU to those who work.
    fn wait(&self) {
        if ipi::can_wake(id()) && flags::interrupts_enabled() {
            self.waiter.store(id().number() + 1, Ordering::SeqCst);
            loop {
                flags::disable_interrupts();
                if self.is_done() {
                    return flags::restore_interrupts(flags::Interrupts::Enabled);
                }
                halt::wait_for_interrupt();
            }
        }
        while !self.is_done() {
            relax();
        }
    }
}

/// Work that was given to a CPU. Dropping this lets it go on alone.
#[must_use = "without `join` nobody waits for the work"]
pub struct JoinHandle<T> {
    packet: Arc<Packet<T>>,
}

impl<T> JoinHandle<T> {
    /// Waits for the work and gives what came of it.
    ///
    /// # Panics
    /// Never: work that has ended has left its value.
    pub fn join(self) -> T {
        self.packet.wait();
        self.packet.value.lock().take().expect("work that is done has left its value, which is taken once")
    }

    /// Whether [`join`](Self::join) would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.packet.is_done()
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("is_finished", &self.is_finished()).finish()
    }
}
