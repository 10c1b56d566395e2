//! Lets two processes work together, by a pipe: one counts, the other adds.
//!
//! # What you will see
//!
//! ```console
//! counts: that was 40
//! process 1 (counts) exited with 0
//! adds: 40 numbers, together 820
//! process 2 (adds) exited with 0
//! process 3 (adds) waits for bytes from a pipe for ever
//! ```
//!
//! # Where to look
//!
//! The pipe holds 256 bytes (`guest-kernel/src/user/pipe.rs`), 40 numbers are 320: so `counts` has to wait for `adds`
//! in between, and `adds` for `counts`. A process that waits is a value in a queue, and its call is made again at its next turn:
//! `guest-kernel/src/user/process.rs` and `guest-kernel/src/user/scheduler.rs`. The pipe ends when its last sender is
//! gone; `counts` drops it by ending. The programs are `user-library/src/bin/counts.rs` and
//! `user-library/src/bin/adds.rs`. Each has an address space of its own: both are linked to the same addresses. Host: it
//! sees the lines that are printed.
//!
//! # Exercises
//!
//! 1. Keep a clone of `sender` until the end of `main`. `adds` does not end any more: it `waits for bytes from a pipe for
//!    ever`, as the third process does.
//! 2. Start two that count and give both a clone of `sender`: `adds: 80 numbers, together 1640`.
//! 3. Drop `receiver` instead of giving it away. `counts` panics, as nobody reads: `Broken`.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::user::{self, Process, Program, Scheduler};
use guest_kernel::{entry, println};

entry!(main);

const COUNTS: Program = user::program!("counts");
const ADDS: Program = user::program!("adds");

fn main() {
    let mut scheduler = Scheduler::new();

    let (sender, receiver) = user::pipe();
    scheduler.start(load(&COUNTS).with_argument(40).with_sender(sender));
    scheduler.start(load(&ADDS).with_receiver(receiver));
    scheduler.run_with(|ended| println!("{ended}"));

    let (_sender, receiver) = user::pipe();
    scheduler.start(load(&ADDS).with_receiver(receiver));
    scheduler.run_with(|ended| println!("{ended}"));
}

fn load(program: &Program) -> Process {
    Process::load(program).expect("our build has made it")
}
