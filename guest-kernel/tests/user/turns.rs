//! Turns: whoever never gives way is made to.

use guest_kernel::guest_test;
use guest_kernel::prelude::*;
use guest_kernel::user::{End, Process, Scheduler};
use user_library::abi::SystemCall;

use crate::code::{code, end_of_process, process};

/// Counts down from its argument, and asks the kernel for nothing meanwhile.
fn spinner(count: u64) -> Process {
    let code = code!(
        "mov eax, {argument}", "syscall", "20: dec rax", "jnz 20b",
        "xor edi, edi", "mov eax, {exit}", "syscall";
        argument = SystemCall::Argument as u64, exit = SystemCall::Exit as u64
    );
    process(code).with_argument(count)
}

#[guest_test(timeout_ms = 60000)]
fn who_never_gives_way_does_not_keep_others_from_running() {
    let mut scheduler = Scheduler::new();
    scheduler.start(spinner(400_000_000));
    scheduler.start(spinner(1));
    let order: Vec<_> = scheduler.run().into_iter().map(|ended| (ended.id, ended.end)).collect();
    assert_eq!(order, [(2, End::Exited(0)), (1, End::Exited(0))]);
}

#[guest_test(timeout_ms = 60000)]
fn turns_are_fair() {
    // With equal shares the one with the least work is the first to be done, wherever it stands in the queue.
    const WORK: u64 = 200_000_000;
    let mut scheduler = Scheduler::new();
    for work in [3 * WORK, WORK, 2 * WORK] {
        scheduler.start(spinner(work));
    }
    let order: Vec<_> = scheduler.run().into_iter().map(|ended| ended.id).collect();
    assert_eq!(order, [2, 3, 1]);
}

#[guest_test(timeout_ms = 20000)]
fn who_never_ends_is_ended() {
    let code = code!("20: jmp 20b");
    assert_eq!(end_of_process(process(code).with_time_limit(3)), End::OutOfTime);
}

#[guest_test(max_exits = 0)]
fn who_gives_way_is_behind_all_others() {
    let code = code!(
        "mov eax, {yields}", "syscall", "mov eax, {id}", "syscall", "mov rdi, rax", "mov eax, {exit}", "syscall";
        yields = SystemCall::Yield as u64, id = SystemCall::ProcessId as u64, exit = SystemCall::Exit as u64
    );
    let mut scheduler = Scheduler::new();
    scheduler.start(process(code));
    scheduler.start(process(code!("ud2")));
    let order: Vec<_> = scheduler.run().into_iter().map(|ended| ended.id).collect();
    assert_eq!(order, [2, 1]);
}
