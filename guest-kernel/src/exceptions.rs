//! Exceptions: what the CPU does when an instruction cannot be completed, and what the kernel makes of it.
//!
//! The CPU saves where it was and continues at a gate of the [IDT](crate::cpu::idt); [`entry`] saves the rest and calls
//! `dispatch`. An exception that nobody handles ends the run: the host gets the registers and says what they mean.
//! A program may handle a vector itself, mend what is wrong, and continue:
//!
//! ```no_run,ignore-none
//! use guest_kernel::exceptions::{self, Next, Vector};
//! use guest_kernel::{cpu::provoke, println};
//!
//! exceptions::on(Vector::InvalidOpcode, |frame| {
//!     println!("no such instruction: RIP {:#x}", frame.rip);
//!     frame.skip()
//! });
//! provoke::invalid_opcode();
//! ```
//!
//! Exceptions of programs in ring 3 do not come here: they end the program, and the kernel goes on ([`user`](crate::user)).
//!
//! Handlers run on the stack that was interrupted, with interrupts off; the double fault has a stack of its own. A
//! handler that faults is interrupted in turn.
//!
//! Host side: `vmm/src/hypercall/last_words.rs`.

pub mod entry;

use core::fmt;
use core::ops::Deref;
use core::sync::atomic::{AtomicPtr, Ordering};

use shared_abi::Gva;
use shared_abi::exception::VECTORS;
pub use shared_abi::exception::{ExceptionFrame, Vector};

use crate::cpu::tss;
use crate::hypercall::{self, Hypercall};

/// What is done about an exception.
pub type Handler = fn(&mut Frame) -> Next;

/// What happens when a handler returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The interrupted code continues: a fault tries its instruction again, a trap is behind it.
    Resume,
    /// The run ends, as if there were no handler.
    Report,
}

/// The registers of what was interrupted. They are read as fields of [`ExceptionFrame`].
#[derive(Debug)]
#[repr(transparent)]
pub struct Frame(ExceptionFrame);

impl Frame {
    /// Whether it is a program's doing, or came while one ran. What has a stack of its own is the kernel's, whatever it
    /// interrupts: a double fault, an NMI, a machine check.
    fn is_of_a_program(&self) -> bool {
        const RING: u64 = 0b11;
        self.0.cs & RING == 3 && tss::stack_for(self.0.vector as usize) == 0
    }

    /// Continues behind the instruction, when it is one of those in [`provoke`](crate::cpu::provoke). Only they are
    /// ready for that: whoever wrote any other instruction relies on what it does.
    #[must_use]
    pub fn skip(&mut self) -> Next {
        match crate::cpu::provoke::behind(Gva(self.0.rip)) {
            Some(behind) => {
                self.0.rip = behind.0;
                Next::Resume
            }
            None => Next::Report,
        }
    }

    /// The registers, to be changed: a handler that returns [`Next::Resume`] continues with them.
    ///
    /// # Safety
    /// 1. RIP is an instruction that can be executed with the other registers as they are then.
    /// 2. Where the interrupted code relies on a register, it keeps its value. RSP leaves untouched what is in use.
    pub unsafe fn registers(&mut self) -> &mut ExceptionFrame {
        &mut self.0
    }
}

impl Deref for Frame {
    type Target = ExceptionFrame;

    fn deref(&self) -> &ExceptionFrame {
        &self.0
    }
}

impl fmt::Display for Frame {
    /// Which exception, in a few words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The programs' handlers, by vector; null where there is none.
static HANDLERS: [AtomicPtr<()>; VECTORS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; VECTORS];

/// Has `handler` called for every exception with this vector, instead of the one before.
pub fn on(vector: Vector, handler: Handler) {
    HANDLERS[vector as usize].store(handler as *mut (), Ordering::Release);
}

/// Has nobody called for this vector any more: the next exception with it ends the run.
pub fn on_default(vector: Vector) {
    HANDLERS[vector as usize].store(core::ptr::null_mut(), Ordering::Release);
}

fn handler_of(vector: u64) -> Option<Handler> {
    let handler = HANDLERS.get(vector as usize)?.load(Ordering::Acquire);
    // SAFETY: Null, which is `None` (core::option, "Representation"), or what `on` has stored: a `Handler`.
    unsafe { core::mem::transmute::<*mut (), Option<Handler>>(handler) }
}

/// Who takes what is no exception of the kernel. Both are known from their first use on: a program that uses neither is not
/// linked with them, and holds no instruction of theirs.
pub(crate) static INTERRUPTS: Taker = Taker::none();
/// Who takes whatever arrives from ring 3.
pub(crate) static PROGRAMS: Taker = Taker::none();

/// A function that may be known.
pub(crate) struct Taker(AtomicPtr<()>);

impl Taker {
    const fn none() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    /// Makes it known.
    pub(crate) fn set(&self, take: fn(&mut Frame)) {
        self.0.store(take as *mut (), Ordering::Release);
    }

    fn get(&self) -> Option<fn(&mut Frame)> {
        let take = self.0.load(Ordering::Acquire);
        // SAFETY: Null, which is `None` (core::option, "Representation"), or what `set` has stored.
        unsafe { core::mem::transmute::<*mut (), Option<fn(&mut Frame)>>(take) }
    }
}

/// What the entries call: has the interrupt handled, or the exception; or the run ended.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "only entries call it"))]
extern "C" fn dispatch(frame: &mut Frame) {
    let taker = match frame.vector {
        _ if frame.is_of_a_program() => PROGRAMS.get(),
        vector if vector >= VECTORS as u64 => INTERRUPTS.get(),
        _ => None,
    };
    if let Some(take) = taker {
        return take(frame);
    }
    let next = handler_of(frame.vector).map_or(Next::Report, |handler| handler(frame));
    if next == Next::Report {
        report(frame);
    }
}

/// Ends the run by an exception that was handled, and that the kernel cannot go on after: a process has died that it does
/// not live without.
pub fn die_of(exception: ExceptionFrame) -> ! {
    report(&Frame(exception))
}

/// Ends the run, and leaves the diagnosis to the host; tells it as a panic where the host takes no calls.
fn report(frame: &Frame) -> ! {
    if hypercall::is_offered() {
        let _ = hypercall::call(Hypercall::Exception { frame_gva: Gva(&raw const *frame as u64) });
    }
    panic!("the CPU raised {frame}; RIP was {:#x}, error code {:#x}", frame.rip, frame.error_code);
}
