//! User mode: programs in ring 3, each in memory of its own.
//!
//! | module | what it is |
//! |---|---|
//! | [`enter`] | into ring 3 and back: the two crossings |
//! | [`doors`] | what arrives when a program calls, on every KVM |
//! | [`setup`] | what the CPU must be told before |
//! | [`memory`] | what lies where in a process |
//! | [`slice`](mod@slice) | memory as a program names it |
//! | [`elf`] | a program's file |
//! | [`program`](mod@program) | how it gets into memory |
//! | [`process`] | registers, memory, handles: all there is of one |
//! | [`turn`] | a process runs, the kernel answers |
//! | [`end`] | what it waits for, and how it ends |
//! | [`calls`] | the answer to every system call |
//! | [`pipe`](mod@pipe) | bytes from one process to another |
//! | [`scheduler`] | whose turn it is |
//! | [`chance`] | programs made by chance, for tests |
//!
//! The programs are in `user-library/src/bin`, on a small library that knows the calls.
//!
//! ```no_run,ignore-none
//! use guest_kernel::println;
//! use guest_kernel::user::{self, Process, Scheduler};
//!
//! let mut scheduler = Scheduler::new();
//! let process = Process::load(&user::program!("greets")).expect("our build has made it");
//! scheduler.start(process);
//! scheduler.run().iter().for_each(|ended| println!("{ended}"));
//! ```
//!
//! Whatever a process does is an answer to it, or its end: the kernel goes on. Processes run on one CPU, the one that
//! runs the [`Scheduler`]; that is why one trap stack is enough, and `syscall` needs no `swapgs` to find it.

mod calls;
pub mod chance;
mod doors;
mod elf;
mod end;
pub(crate) mod enter;
mod memory;
mod pipe;
mod process;
mod program;
mod registers;
mod scheduler;
mod setup;
mod slice;
mod turn;

pub use elf::{ImageError, MAX_SEGMENTS};
pub use end::{End, Wait};
pub use memory::{HEAP, HEAP_END, IMAGE, IMAGE_END, MAX_PAGES, MemoryError, STACK, STACK_END};
pub use pipe::{CAPACITY, Receiver, Sender, Transfer, pipe};
pub use process::Process;
pub use program::{LoadError, Program};
pub use scheduler::{Ended, Scheduler, TIME_SLICE};

pub use crate::user_program as program;

#[cfg(target_os = "none")]
use crate::exceptions::Frame;

/// What the kernel does first when something arrives from ring 3: serve the interrupt, if it is one. Then it goes on where
/// it has entered the program; what the program has done is in its registers.
#[cfg(target_os = "none")]
fn dispatch(frame: &mut Frame) {
    enter::forget_flags();
    if doors::is_interrupt(frame.vector) {
        crate::interrupts::dispatch(frame);
    }
    // SAFETY: A program was interrupted, so `enter` waits.
    unsafe { enter::leave() }
}
