//! Pipes: bytes arrive, whoever is faster waits, and who waits for ever is told.

use guest_kernel::guest_test;
use guest_kernel::user::{self, CAPACITY, End, Process, Scheduler, Transfer, Wait};
use user_library::abi::{SystemCall, SystemError};

use crate::code::{code, process};

/// Sends RBX times eight bytes to handle 1, then exits with 0.
fn sender(times: u64) -> Process {
    let code = code!(
        "mov eax, {argument}", "syscall", "mov rbx, rax",
        "20: push rbx", "mov edi, 1", "mov rsi, rsp", "mov edx, 8", "mov eax, {write}", "syscall", "pop rcx",
        "cmp rax, 8", "jne 21f", "dec rbx", "jnz 20b",
        "xor eax, eax",
        "21: mov rdi, rax", "mov eax, {exit}", "syscall";
        argument = SystemCall::Argument as u64, write = SystemCall::Write as u64, exit = SystemCall::Exit as u64
    );
    process(code).with_argument(times)
}

/// Reads from handle 1 until the end, and exits with the number of bytes; with minus the error if there is one.
fn receiver() -> Process {
    process(code!(
        "xor ebx, ebx", "sub rsp, 256",
        "20: mov edi, 1", "mov rsi, rsp", "mov edx, 100", "mov eax, {read}", "syscall",
        "test rax, rax", "jle 21f", "add rbx, rax", "jmp 20b",
        "21: add rax, rbx", "mov rdi, rax", "mov eax, {exit}", "syscall";
        read = SystemCall::Read as u64, exit = SystemCall::Exit as u64
    ))
}

#[guest_test(timeout_ms = 60000)]
fn all_bytes_arrive_though_the_pipe_is_smaller() {
    const TIMES: u64 = CAPACITY as u64 / 6;
    let (to, from) = user::pipe();
    let mut scheduler = Scheduler::new();
    scheduler.start(sender(TIMES).with_sender(to));
    scheduler.start(receiver().with_receiver(from));
    let ended = scheduler.run();
    assert_eq!((ended[0].id, &ended[0].end), (1, &End::Exited(0)));
    assert_eq!((ended[1].id, &ended[1].end), (2, &End::Exited(8 * TIMES)));
}

#[guest_test(timeout_ms = 60000)]
fn a_full_pipe_has_its_sender_wait_and_nobody_reading_is_told() {
    let (to, from) = user::pipe();
    let mut scheduler = Scheduler::new();
    scheduler.start(sender(CAPACITY as u64 / 8 + 1).with_sender(to));
    assert_eq!(scheduler.run()[0].end, End::Stuck(Wait::Room));
    let mut bytes = [0; CAPACITY];
    assert_eq!(from.receive(&mut bytes), Transfer::Done(CAPACITY), "what it sent is still there");
}

#[guest_test(max_exits = 0)]
fn a_pipe_without_receivers_is_broken() {
    let (to, _) = user::pipe();
    let mut scheduler = Scheduler::new();
    scheduler.start(sender(1).with_sender(to));
    assert_eq!(scheduler.run()[0].end, End::Exited((SystemError::Broken as u64).wrapping_neg()));
}

#[guest_test]
fn two_that_wait_for_each_other_are_stuck() {
    let ((to_first, from_second), (to_second, from_first)) = (user::pipe(), user::pipe());
    let mut scheduler = Scheduler::new();
    scheduler.start(receiver().with_receiver(from_second).with_sender(to_second));
    scheduler.start(receiver().with_receiver(from_first).with_sender(to_first));
    let ended = scheduler.run();
    assert!(ended.iter().all(|ended| ended.end == End::Stuck(Wait::Bytes)), "{ended:?}");
    assert_eq!(ended.len(), 2);
}

#[guest_test]
fn who_dies_lets_go_of_the_pipe() {
    let (to, from) = user::pipe();
    let mut scheduler = Scheduler::new();
    scheduler.start(receiver().with_receiver(from));
    scheduler.start(process(code!("hlt")).with_sender(to));
    let ended = scheduler.run();
    assert!(matches!((ended[0].id, &ended[0].end), (2, End::Died(_))));
    assert_eq!((ended[1].id, &ended[1].end), (1, &End::Exited(0)));
}

#[guest_test(max_exits = 0)]
fn an_end_goes_one_way() {
    let (to, from) = user::pipe();
    let mut scheduler = Scheduler::new();
    scheduler.start(sender(1).with_receiver(from));
    scheduler.start(receiver().with_sender(to));
    let bad = End::Exited((SystemError::BadHandle as u64).wrapping_neg());
    assert!(scheduler.run().iter().all(|ended| ended.end == bad));
}
