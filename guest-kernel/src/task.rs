//! Tasks: functions that wait for several things at once, on one CPU and one stack.
//!
//! An `async` function is a state machine: the compiler cuts it where it awaits. Somebody must call it again when what it
//! waits for has come, and that is the executor:
//!
//! ```text
//!              ready queue                      poll
//!  spawn ────► task, task, … ──► run: the first ─────► done: forgotten
//!                   ▲                     │ pending: left alone, nobody asks it
//!                   │ wake                ▼
//!     interrupt: alarm, input       queue empty: the CPU halts
//! ```
//!
//! ```no_run,ignore-none
//! use core::time::Duration;
//! use guest_kernel::{println, task};
//!
//! task::spawn(async {
//!     task::sleep(Duration::from_millis(10)).await;
//!     println!("ten milliseconds later");
//! });
//! task::run();
//! ```
//!
//! A task holds a [`Waker`] where it waits, and an interrupt handler calls it: that puts the task into the queue, and the
//! interrupt has ended the halt. Nothing is looked at again and again. The queue has room for every task, so a handler
//! never asks the heap for memory.

mod input;
mod sleep;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

pub use input::{ReadInput, read_input};
pub use sleep::{Sleep, sleep, sleep_until};

use crate::interrupts;
use crate::sync::Mutex;

/// A future that a task is made of.
type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A task; whoever may wake it has a share in it.
struct Task {
    /// What is left to do. Taken out while it is polled, so that no lock is held then; gone when it is done.
    future: Mutex<Option<TaskFuture>>,
    /// Whether it is in the queue: it is there once at most.
    is_ready: AtomicBool,
}

/// The tasks that can go on.
static READY: Mutex<Queue> = Mutex::new(Queue { tasks: VecDeque::new(), alive: 0 });

struct Queue {
    tasks: VecDeque<Arc<Task>>,
    /// How many are not done, waiting ones included.
    alive: usize,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.is_ready.swap(true, Ordering::AcqRel) {
            READY.lock().tasks.push_back(self);
        }
    }
}

/// Adds a task. It starts when [`run`] comes to it.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    let future: TaskFuture = Box::pin(future);
    let task = Arc::new(Task { future: Mutex::new(Some(future)), is_ready: AtomicBool::new(false) });
    let mut ready = READY.lock();
    ready.alive += 1;
    let room = ready.alive.saturating_sub(ready.tasks.len());
    ready.tasks.reserve(room);
    drop(ready);
    task.wake();
}

/// Runs all tasks until none is left, those that they spawn included. When all of them wait, the CPU halts. One CPU at a
/// time may run tasks.
pub fn run() {
    loop {
        while let Some(task) = next_ready() {
            poll(task);
        }
        if READY.lock().alive == 0 {
            return;
        }
        interrupts::wait_while(|| READY.lock().tasks.is_empty());
    }
}

fn next_ready() -> Option<Arc<Task>> {
    READY.lock().tasks.pop_front()
}

/// Lets a task go on, to where it waits next or to its end.
fn poll(task: Arc<Task>) {
    // From here on a wake counts again: it may come while the task is polled.
    task.is_ready.store(false, Ordering::Release);
    let Some(mut future) = task.future.lock().take() else { return };
    let waker = Waker::from(Arc::clone(&task));
    match future.as_mut().poll(&mut Context::from_waker(&waker)) {
        Poll::Pending => *task.future.lock() = Some(future),
        Poll::Ready(()) => READY.lock().alive -= 1,
    }
}

/// Lets the other tasks that are ready go first.
pub async fn yield_now() {
    let mut has_yielded = false;
    core::future::poll_fn(|context| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
