//! Runs programs in ring 3, which can ask for things, and are ended when they take them.
//!
//! # What you will see
//!
//! ```console
//! hello from ring 3: I am process 1
//! asked by `int 0x80`, the kernel says Ok(1)
//! asked for what it does not know, it says Err(NoSuchCall)
//! process 1 (greets) exited with 0
//! Err(BadAddress)
//! process 2 (trespasses) exited with 0
//! process 3 (trespasses) died of #PF (page fault) at 0x100000 (a read, not allowed there), RIP 0x80001…
//! process 4 (trespasses) died of #PF (page fault) at 0x8000100000 (a write, not allowed there), RIP 0x80001…
//! process 5 (trespasses) died of #GP (general protection), RIP 0x80001…
//! process 6 (trespasses) died of #PF (page fault) at 0x100000 (a fetch, not allowed there), RIP 0x100000
//! process 7 (trespasses) died of #PF (page fault) at 0x80000bf… (a write, nothing is mapped), RIP 0x80001…
//! the kernel is well, and has all its memory back: true
//! ```
//!
//! # Where to look
//!
//! The programs are `user-library/src/bin/greets.rs` and `user-library/src/bin/trespasses.rs`; how they ask is in
//! `user-library/src/calls.rs`, how they are built in `guest-kernel/build.rs`. Kernel: `guest-kernel/src/user/enter.rs`
//! goes to ring 3 and comes back, `guest-kernel/src/user/doors.rs` tells what has arrived (it is not the same on every
//! KVM), `guest-kernel/src/user/calls.rs` answers. Host: nothing. A system call leaves a program, not the machine; only
//! the line that the kernel prints for it does.
//!
//! # Exercises
//!
//! 1. Have `greets` panic. Its process says where, and `exited with 101`.
//! 2. Add a call that doubles a number, `SystemCall::Double`, in `user-library/src/abi.rs`. The compiler names the one
//!    place in the kernel that must answer it. `Ok(42)` for 21.
//! 3. `cargo xtask run 11_user_mode --stats`: how many exits has all this cost? One for each line, and one for the end.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::memory::frames;
use guest_kernel::user::{self, Process, Program, Scheduler};
use guest_kernel::{entry, println};

entry!(main);

fn main() {
    let mut scheduler = Scheduler::new();
    run(&mut scheduler, &user::program!("greets"), 0);

    let free = frames::free_count();
    for crime in 0..6 {
        run(&mut scheduler, &user::program!("trespasses"), crime);
    }
    println!("the kernel is well, and has all its memory back: {}", frames::free_count() == free);
}

/// Runs one process to its end, and tells how it ended.
fn run(scheduler: &mut Scheduler, program: &Program, argument: u64) {
    let process = Process::load(program).expect("our build has made it");
    scheduler.start(process.with_argument(argument));
    scheduler.run().iter().for_each(|ended| println!("{ended}"));
}
