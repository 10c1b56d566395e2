//! Stopping a guest from outside: Ctrl-C, a time limit, an embedding program's wish.
//!
//! A vCPU's thread sits in the ioctl KVM_RUN for as long as the guest spins. Only a signal to that very thread brings
//! it out, with EINTR. One gap must be closed: a signal that arrives just *before* the thread enters the ioctl would
//! be lost. KVM has `kvm_run.immediate_exit` for this (Linux Documentation/virt/kvm/api.rst, 5): while it is 1,
//! KVM_RUN returns at once. So the signal handler sets it, through a pointer that belongs to the thread.
//!
//! ```text
//! any thread, or a signal handler         the thread of each vCPU
//! StopHandle::stop: request = Interrupt
//!                   tgkill, each ───────► handler: immediate_exit = 1
//!                                         KVM_RUN returns EINTR, now or as soon as it is entered
//!                                         run loop asks `requested()` and stops
//! ```
//!
//! A stop is for good; a pause, which a debugger asks for, goes the same way and is over with the run that it ends. And
//! so does the recall by which one vCPU that has come to the end brings the others to stand ([`crew`](crate::crew)).

use std::cell::Cell;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use kvm_bindings::kvm_run;
use shared_abi::BootInfo;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::cpus::VcpuId;
use crate::error::{Error, Result};

/// Why somebody wants the guest to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StopRequest {
    /// A user's or an embedding program's wish.
    Interrupt = 1,
    /// The time limit.
    TimeLimit = 2,
    /// Nobody reads the console any more.
    ConsoleClosed = 3,
}

/// Stops a machine from any thread, and from signal handlers.
#[derive(Clone, Debug, Default)]
pub struct StopHandle {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// 0, or the first `StopRequest` made.
    request: AtomicU8,
    /// Whether the machine is to stand still and may go on later.
    pause: AtomicBool,
    /// Whether one vCPU has ended the run, or this piece of it.
    recall: AtomicBool,
    /// The kernel's id of the thread that runs each vCPU; 0 while none does.
    threads: [AtomicI32; BootInfo::MAX_VCPUS as usize],
}

impl Default for State {
    fn default() -> Self {
        Self {
            request: AtomicU8::new(0),
            pause: AtomicBool::new(false),
            recall: AtomicBool::new(false),
            threads: [const { AtomicI32::new(0) }; _],
        }
    }
}

impl StopHandle {
    /// Asks the machine to stop; the first request counts. Safe to call from a signal handler: atomics and one
    /// system call.
    pub fn stop(&self, request: StopRequest) {
        let _ = self.state.request.compare_exchange(0, request as u8, Ordering::SeqCst, Ordering::SeqCst);
        self.kick();
    }

    /// Asks the machine to stand still where it is: the run ends with [`StopReason::Paused`](crate::StopReason::Paused),
    /// and the next one goes on. Unlike [`stop`](Self::stop) a pause is used up by the run that it ends.
    pub fn pause(&self) {
        self.state.pause.store(true, Ordering::SeqCst);
        self.kick();
    }

    /// Takes a pause back; says whether one was asked for.
    pub(crate) fn take_pause(&self) -> bool {
        self.state.pause.swap(false, Ordering::SeqCst)
    }

    /// Takes back the end of the time, for a machine that is to go on from an earlier moment.
    pub(crate) fn forget_time_limit(&self) {
        let time_limit = StopRequest::TimeLimit as u8;
        let _ = self.state.request.compare_exchange(time_limit, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Brings all vCPUs to stand, because one has come to an end.
    pub(crate) fn recall(&self) {
        self.state.recall.store(true, Ordering::SeqCst);
        self.kick();
    }

    /// Whether the vCPUs are to stand, because one has come to an end.
    pub(crate) fn is_recalled(&self) -> bool {
        self.state.recall.load(Ordering::SeqCst)
    }

    /// Takes the recall back: the vCPUs, which all stand, may go on.
    pub(crate) fn forget_recall(&self) {
        self.state.recall.store(false, Ordering::SeqCst);
    }

    /// Brings the threads that run vCPUs out of KVM_RUN, if there are any.
    fn kick(&self) {
        self.state.threads.iter().for_each(kick);
    }

    /// Brings one of them out of KVM_RUN, to look what it is asked for.
    pub(crate) fn kick_one(&self, id: VcpuId) {
        kick(self.thread_of(id));
    }

    /// What was asked for, if anything.
    #[must_use]
    pub fn requested(&self) -> Option<StopRequest> {
        match self.state.request.load(Ordering::SeqCst) {
            0 => None,
            request if request == StopRequest::TimeLimit as u8 => Some(StopRequest::TimeLimit),
            request if request == StopRequest::ConsoleClosed as u8 => Some(StopRequest::ConsoleClosed),
            _ => Some(StopRequest::Interrupt),
        }
    }

    /// Lets requests reach the vCPU whose `kvm_run` this is, from now until the guard is dropped on this thread. A request
    /// made before brings it out of its first entry.
    pub(crate) fn attach(&self, id: VcpuId, run: &mut kvm_run) -> Result<Attached> {
        install_kick_handler()?;
        IMMEDIATE_EXIT.set(&raw mut run.immediate_exit);
        // SAFETY: gettid has no arguments and cannot fail.
        let thread = unsafe { libc::gettid() };
        // After this line requests are signalled.
        self.thread_of(id).store(thread, Ordering::SeqCst);
        if self.requested().is_some() || self.is_recalled() {
            run.immediate_exit = 1;
        }
        Ok(Attached { handle: self.clone(), id })
    }

    fn thread_of(&self, id: VcpuId) -> &AtomicI32 {
        self.state.threads.get(id.index()).expect("no machine has more vCPUs than there are threads")
    }
}

/// Kicks the thread whose number this is, if it is one.
fn kick(thread: &AtomicI32) {
    let thread = thread.load(Ordering::SeqCst);
    if thread != 0 {
        // SAFETY: tgkill reads no memory. A thread that has ended meanwhile gives ESRCH, which is as good.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, kick_signal()) };
    }
}

/// While it lives, requests kick the thread that made it.
#[derive(Debug)]
pub(crate) struct Attached {
    handle: StopHandle,
    id: VcpuId,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.handle.thread_of(self.id).store(0, Ordering::SeqCst);
        IMMEDIATE_EXIT.set(ptr::null_mut());
    }
}

thread_local! {
    /// `immediate_exit` of the vCPU that this thread runs; null while it runs none. Constant-initialised and without
    /// a destructor, so the signal handler's access allocates nothing.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(ptr::null_mut()) };
}

/// The signal that brings a vCPU thread out of KVM_RUN: the first real-time signal, which nothing else here uses.
fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

fn install_kick_handler() -> Result<()> {
    static INSTALLED: OnceLock<std::result::Result<(), i32>> = OnceLock::new();
    let installed = INSTALLED
        .get_or_init(|| register_signal_handler(kick_signal(), on_kick).map_err(|error| error.errno()));
    installed.map_err(|errno| Error::Stop {
        action: "install the signal handler that stops guests",
        source: io::Error::from_raw_os_error(errno),
    })
}

extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let immediate_exit = IMMEDIATE_EXIT.get();
    if !immediate_exit.is_null() {
        // SAFETY: The handler runs on the thread that set the pointer, and `Attached` clears it before the vCPU's
        // mapping goes. A volatile byte store is what KVM, which reads the same page, expects.
        unsafe { immediate_exit.write_volatile(1) };
    }
}

/// How long a stopped machine may take to notice before it is told again.
const STOP_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// A thread that stops the machine when its time is up; ends early when dropped.
#[derive(Debug)]
pub(crate) struct Watchdog {
    /// Dropped first, which wakes the thread.
    cancel: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts counting.
    pub(crate) fn start(handle: StopHandle, limit: Duration) -> Result<Self> {
        let (cancel, cancelled) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(move || {
                let mut wait = limit;
                // Once is enough for a guest; a VMM that writes to a full pipe may have to be told again.
                while cancelled.recv_timeout(wait) == Err(mpsc::RecvTimeoutError::Timeout) {
                    handle.stop(StopRequest::TimeLimit);
                    wait = STOP_AGAIN_AFTER;
                }
            })
            .map_err(|source| Error::Stop { action: "start the thread that keeps the time limit", source })?;
        Ok(Self { cancel: Some(cancel), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.cancel.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
