//! System calls: both ways in, what survives them, and what is refused.

use guest_kernel::guest_test;
use guest_kernel::user::{End, IMAGE, STACK, STACK_END};
use user_library::abi::{self, CONSOLE, SystemCall, SystemError};

use crate::code::{calling, code, end_of};

/// What a program gets for this call.
fn answer(call: SystemCall, arguments: [u64; 3]) -> abi::Answer {
    match end_of(&calling(call as u64, arguments)) {
        End::Exited(rax) => abi::decode(rax),
        end => panic!("{call:?}: the program {end}"),
    }
}

#[guest_test(max_exits = 0)]
fn both_ways_lead_to_the_same_answer() {
    let code = code!(
        "mov eax, {id}", "syscall", "mov rbx, rax",
        "mov eax, {id}", "int 0x80", "shl rax, 8", "or rbx, rax",
        "mov rdi, rbx", "mov eax, {exit}", "int 0x80";
        id = SystemCall::ProcessId as u64, exit = SystemCall::Exit as u64
    );
    assert_eq!(end_of(code), End::Exited(0x0101));
}

#[guest_test(max_exits = 0)]
fn all_registers_but_three_survive_a_call() {
    // The sum of squares tells which register has changed.
    let code = code!(
        "mov rbp, rsp",
        "mov ebx, 1", "mov edx, 2", "mov esi, 3", "mov edi, 4", "mov r8d, 5", "mov r9d, 6", "mov r10d, 7",
        "mov r12d, 8", "mov r13d, 9", "mov r14d, 10", "mov r15d, 11",
        "mov eax, {yields}", "syscall",
        "mov eax, {yields}", "int 0x80",
        "sub rbp, rsp", "imul ebx, ebx", "add rbp, rbx",
        "imul edx, edx", "add rbp, rdx", "imul esi, esi", "add rbp, rsi", "imul edi, edi", "add rbp, rdi",
        "imul r8d, r8d", "add rbp, r8", "imul r9d, r9d", "add rbp, r9", "imul r10d, r10d", "add rbp, r10",
        "imul r12d, r12d", "add rbp, r12", "imul r13d, r13d", "add rbp, r13", "imul r14d, r14d", "add rbp, r14",
        "imul r15d, r15d", "add rbp, r15",
        "mov rdi, rbp", "mov eax, {exit}", "syscall";
        yields = SystemCall::Yield as u64, exit = SystemCall::Exit as u64
    );
    assert_eq!(end_of(code), End::Exited((1..=11_u64).map(|number| number * number).sum()));
}

#[guest_test(max_exits = 0)]
fn the_flags_survive_a_call_and_the_kernel_has_its_own() {
    // Carry and direction are set: with DF the kernel would copy backwards.
    let code = code!(
        "stc", "std", "mov eax, {yields}", "syscall", "pushfq", "pop rdi", "cld",
        "mov eax, {exit}", "syscall";
        yields = SystemCall::Yield as u64, exit = SystemCall::Exit as u64
    );
    let End::Exited(flags) = end_of(code) else { panic!("the program should exit") };
    assert_eq!(flags & 0x3601, 0x0601, "carry, direction, interrupts; not IOPL: {flags:#x}");
}

#[guest_test(max_exits = 0)]
fn a_number_that_is_no_call_is_refused() {
    for number in [SystemCall::ALL.len() as u64, 1000, 1 << 32, 1 << 63, u64::MAX] {
        let end = end_of(&calling(number, [0; 3]));
        assert_eq!(end, End::Exited(abi::encode(Err(SystemError::NoSuchCall))), "{number:#x}");
    }
}

/// Where nothing may be read or written for a program: (address, bytes).
const NOT_ITS_OWN: [(u64, u64); 13] = [
    (0, 1),
    (0x10_0000, 16),
    (shared_abi::layout::BOOT_INFO.0, 8),
    (0xFFFF_8000_0000_0000, 8),
    (0x80_0000_0000, 8),
    (STACK - 8, 8),
    (STACK - 4, 8),
    (IMAGE + 0x1000 - 4, 8),
    (0x7FFF_FFFF_FFFF, 1),
    (0x7FFF_FFFF_FFFF, 2),
    (1 << 47, 1),
    (u64::MAX - 3, 8),
    (IMAGE, u64::MAX),
];

#[guest_test(max_exits = 0)]
fn the_kernel_reads_nothing_that_the_program_could_not() {
    for (address, size) in NOT_ITS_OWN {
        let refused = answer(SystemCall::Write, [CONSOLE, address, size]);
        assert_eq!(refused, Err(SystemError::BadAddress), "{address:#x}, {size}");
    }
}

#[guest_test(max_exits = 0)]
fn the_kernel_writes_nothing_that_the_program_could_not() {
    let code_of_its_own = [(IMAGE, 1), (STACK_END - 4, 8)];
    for (address, size) in NOT_ITS_OWN.into_iter().chain(code_of_its_own) {
        let refused = answer(SystemCall::Read, [CONSOLE, address, size]);
        assert_eq!(refused, Err(SystemError::BadAddress), "{address:#x}, {size}");
    }
}

#[guest_test(max_exits = 2, prints = "over the end of a page")]
fn a_text_may_lie_on_two_pages() {
    // The last bytes of the stack, and the first of the image, which are these instructions.
    let code = code!(
        "jmp 22f",
        "21: .ascii \"over the end of a page\"",
        "22: lea rsi, [rip + 21b]", "mov rdi, rsp", "sub rdi, 4090", "mov r8, rdi", "mov ecx, 22", "rep movsb",
        "mov edi, 0", "mov rsi, r8", "mov edx, 22", "mov eax, {write}", "syscall",
        "mov rdi, rax", "mov eax, {exit}", "syscall";
        write = SystemCall::Write as u64, exit = SystemCall::Exit as u64
    );
    assert_eq!(end_of(code), End::Exited(22));
}

#[guest_test(max_exits = 0)]
fn a_handle_that_was_not_given_is_refused() {
    for handle in [1, 2, 1 << 32, u64::MAX] {
        assert_eq!(answer(SystemCall::Write, [handle, IMAGE, 1]), Err(SystemError::BadHandle), "{handle}");
        assert_eq!(answer(SystemCall::Read, [handle, STACK, 1]), Err(SystemError::BadHandle), "{handle}");
        assert_eq!(answer(SystemCall::Close, [handle, 0, 0]), Err(SystemError::BadHandle), "{handle}");
    }
}

#[guest_test(max_exits = 0)]
fn what_was_closed_is_closed() {
    let code = code!(
        "xor edi, edi", "mov eax, {close}", "syscall", "mov rbx, rax",
        "xor edi, edi", "mov eax, {close}", "syscall", "sub rbx, rax",
        "mov rdi, rbx", "mov eax, {exit}", "syscall";
        close = SystemCall::Close as u64, exit = SystemCall::Exit as u64
    );
    assert_eq!(end_of(code), End::Exited(SystemError::BadHandle as u64));
}

#[guest_test]
fn a_sleep_takes_its_time() {
    let code = code!(
        "mov eax, {time}", "syscall", "mov rbx, rax",
        "mov edi, 20000000", "mov eax, {sleep}", "syscall",
        "mov eax, {time}", "syscall", "sub rax, rbx",
        "mov rdi, rax", "mov eax, {exit}", "syscall";
        time = SystemCall::Time as u64, sleep = SystemCall::Sleep as u64, exit = SystemCall::Exit as u64
    );
    let End::Exited(slept) = end_of(code) else { panic!("the program should exit") };
    assert!(slept >= 20_000_000, "{slept} ns");
}
