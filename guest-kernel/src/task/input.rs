//! Waiting for what is typed, as a future.
//!
//! The host is asked without waiting. When it has nothing, it says so and presses
//! [`CONSOLE_INPUT`](interrupts::CONSOLE_INPUT) once as soon as there is something: no press can come before the answer,
//! and the waker is in its place before the question, so none is missed. Host side: `vmm/src/arrivals.rs`.

use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use shared_abi::HypercallError;

use crate::hypercall;
use crate::interrupts::{self, Trigger};
use crate::sync::Mutex;

/// Reads what is typed into `buffer`; 0 bytes are the end of the input. Other tasks run while nothing comes. One task at a
/// time may read.
pub fn read_input(buffer: &mut [u8]) -> ReadInput<'_> {
    ReadInput { buffer }
}

/// Ready when something was typed.
#[derive(Debug)]
#[must_use = "it reads when it is awaited"]
pub struct ReadInput<'a> {
    buffer: &'a mut [u8],
}

/// Who waits.
static READER: Mutex<Option<Waker>> = Mutex::new(None);

impl Future for ReadInput<'_> {
    type Output = Result<usize, HypercallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        listen();
        let before = READER.lock().replace(context.waker().clone());
        drop(before);
        match hypercall::console_try_read(self.buffer) {
            Err(HypercallError::WouldBlock) => Poll::Pending,
            answer => Poll::Ready(answer),
        }
    }
}

/// Has the interrupt wake who waits.
fn listen() {
    static IS_LISTENING: AtomicBool = AtomicBool::new(false);
    if !IS_LISTENING.swap(true, Ordering::Relaxed) {
        interrupts::on_pin(interrupts::CONSOLE_INPUT, Trigger::Edge, |_| {
            let reader = READER.lock().take();
            if let Some(reader) = reader {
                reader.wake();
            }
        });
    }
}
