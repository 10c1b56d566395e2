//! A process's memory: its own, limited, and given back.

use guest_kernel::exceptions::Vector;
use guest_kernel::guest_test;
use guest_kernel::memory::frames;
use guest_kernel::prelude::*;
use guest_kernel::user::{self, End, HEAP, LoadError, MAX_PAGES, Process, Program, Scheduler};
use user_library::abi::{self, SystemCall, SystemError};

use crate::code::{calling, code, end_of, process};

#[guest_test(max_exits = 0, timeout_ms = 20000)]
fn a_process_gives_all_its_memory_back() {
    let code = code!(
        "mov edi, 0x3000", "mov eax, {grow}", "syscall", "push rax", "ud2";
        grow = SystemCall::Grow as u64
    );
    // The first one has the heap grow, and that stays.
    drop(end_of(code));
    let free = frames::free_count();
    for _ in 0..10 {
        assert!(matches!(end_of(code), End::Died(_)));
    }
    assert_eq!(frames::free_count(), free);
}

#[guest_test(max_exits = 0)]
fn a_process_that_was_never_started_gives_it_back_too() {
    drop(process(code!("ud2")));
    let free = frames::free_count();
    drop(process(code!("ud2")));
    assert_eq!(frames::free_count(), free);
}

#[guest_test(max_exits = 0)]
fn what_is_given_is_zero_and_its_own() {
    let code = code!(
        "mov edi, 0x2000", "mov eax, {grow}", "syscall", "mov rbx, rax",
        "mov rax, [rbx]", "or rax, [rbx + 0x1ff8]", "mov dword ptr [rbx], 5", "add rax, [rbx]",
        "add rax, rbx",
        "mov rdi, rax", "mov eax, {exit}", "syscall";
        grow = SystemCall::Grow as u64, exit = SystemCall::Exit as u64
    );
    assert_eq!(end_of(code), End::Exited(HEAP + 5));
    assert_eq!(end_of(code), End::Exited(HEAP + 5), "another process finds nothing of it");
}

#[guest_test(max_exits = 0)]
fn more_than_a_process_may_have_is_refused() {
    for size in [MAX_PAGES * 4096, 1 << 40, u64::MAX] {
        let end = end_of(&calling(SystemCall::Grow as u64, [size, 0, 0]));
        assert_eq!(end, End::Exited(abi::encode(Err(SystemError::OutOfMemory))), "{size:#x}");
    }
}

#[guest_test(max_exits = 0)]
fn equal_addresses_are_different_memory() {
    // Each writes its number to the same place of its stack, lets the other run, and looks again.
    let code = code!(
        "mov eax, {id}", "syscall", "mov [rsp - 64], rax",
        "mov eax, {yields}", "syscall",
        "mov rdi, [rsp - 64]", "mov eax, {exit}", "syscall";
        id = SystemCall::ProcessId as u64, yields = SystemCall::Yield as u64, exit = SystemCall::Exit as u64
    );
    let mut scheduler = Scheduler::new();
    scheduler.start(process(code));
    scheduler.start(process(code));
    let mut ends: Vec<_> = scheduler.run().into_iter().map(|ended| (ended.id, ended.end)).collect();
    // The timer may take either's turn away at any place.
    ends.sort_by_key(|(id, _)| *id);
    assert_eq!(ends, [(1, End::Exited(1)), (2, End::Exited(2))]);
}

#[guest_test(max_exits = 0)]
fn the_stack_grows_when_it_is_touched() {
    let code = code!(
        "mov byte ptr [rsp - 0x20000], 3", "movzx edi, byte ptr [rsp - 0x20000]",
        "mov eax, {exit}", "syscall";
        exit = SystemCall::Exit as u64
    );
    assert_eq!(end_of(code), End::Exited(3));
}

#[guest_test(max_exits = 0)]
fn a_file_that_is_no_program_is_refused() {
    let greets = user::program!("greets").image;
    let cut = Program { name: "cut", image: &greets[..200] };
    assert!(matches!(Process::load(&cut), Err(LoadError::Image(_))));
    let none = Program { name: "none", image: b"#!/bin/sh" };
    assert!(matches!(Process::load(&none), Err(LoadError::Image(_))));
}

#[guest_test(prints = "process 1")]
fn a_program_in_rust_is_loaded_with_its_rights() {
    let process = Process::load(&user::program!("greets")).expect("our build has made it");
    assert_eq!(crate::code::end_of_process(process), End::Exited(0));
    for (argument, vector) in [(2, Vector::PageFault), (3, Vector::GeneralProtection)] {
        let process = Process::load(&user::program!("trespasses")).expect("our build has made it");
        match crate::code::end_of_process(process.with_argument(argument)) {
            End::Died(frame) => assert_eq!(frame.vector(), Some(vector)),
            end => panic!("the program {end}"),
        }
    }
}
