//! Exceptions: every one that can be provoked arrives, and whoever handles it decides how it goes on.

use core::arch::asm;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_kernel::cpu::{gdt, idt, provoke};
use guest_kernel::exceptions::{self, ExceptionFrame, Next, Vector};
use guest_kernel::{Gva, device_memory, guest_test, println};
use shared_abi::layout;

/// What the last exception left, for the test to look at.
static SEEN: [AtomicU64; 7] = [const { AtomicU64::new(0) }; 7];

fn keep(frame: &ExceptionFrame) {
    let words = [frame.vector, frame.error_code, frame.cr2, frame.cs, frame.ss, frame.rflags, frame.rsp];
    SEEN.iter().zip(words).for_each(|(seen, word)| seen.store(word, Ordering::Relaxed));
}

fn seen() -> [u64; 7] {
    [0, 1, 2, 3, 4, 5, 6].map(|index: usize| SEEN[index].load(Ordering::Relaxed))
}

/// Has exceptions of this kind kept and skipped.
fn skip_all(vector: Vector) {
    exceptions::on(vector, |frame| {
        keep(frame);
        frame.skip()
    });
}

#[guest_test(max_exits = 0)]
fn a_division_by_zero_can_be_skipped() {
    skip_all(Vector::DivideError);
    assert_eq!(provoke::divide(black_box(7), black_box(0)), 7);
    assert_eq!(seen()[..2], [Vector::DivideError as u64, 0]);
    assert_eq!(provoke::divide(black_box(42), black_box(2)), 21, "no exception, no skip");
}

#[guest_test(max_exits = 0)]
fn an_invalid_opcode_can_be_skipped_again_and_again() {
    static TIMES: AtomicU64 = AtomicU64::new(0);
    exceptions::on(Vector::InvalidOpcode, |frame| {
        TIMES.fetch_add(1, Ordering::Relaxed);
        frame.skip()
    });
    for _ in 0..100 {
        provoke::invalid_opcode();
    }
    assert_eq!(TIMES.load(Ordering::Relaxed), 100);
}

#[guest_test(max_exits = 0)]
fn a_page_fault_has_address_and_error_code() {
    skip_all(Vector::PageFault);
    assert_eq!(provoke::read(Gva(0x123)), 0);
    // Not present, a read, by the kernel (Intel SDM vol. 3A, 4.7).
    assert_eq!(seen()[..3], [Vector::PageFault as u64, 0, 0x123]);
}

#[guest_test(max_exits = 0)]
fn an_address_that_is_not_canonical_is_a_general_protection_fault() {
    skip_all(Vector::GeneralProtection);
    assert_eq!(provoke::read(Gva(1 << 47)), 0);
    assert_eq!(seen()[..2], [Vector::GeneralProtection as u64, 0]);
}

#[guest_test(max_exits = 0)]
fn a_selector_behind_the_gdt_is_told_in_the_error_code() {
    exceptions::on(Vector::GeneralProtection, |frame| {
        keep(frame);
        // SAFETY: Continues behind the two bytes of `mov ds, eax`, which has changed nothing.
        unsafe { frame.registers().rip += 2 };
        Next::Resume
    });
    // SAFETY: In 64-bit mode DS means nothing, and here it keeps its value.
    unsafe { asm!("mov ds, eax", in("eax") 0x1230, options(nostack, preserves_flags)) };
    assert_eq!(seen()[..2], [Vector::GeneralProtection as u64, 0x1230]);
}

/// #SS on a CPU; the one that QEMU emulates says #GP (Intel SDM vol. 3A, 6.15, interrupts 12 and 13).
#[guest_test(should_fault, max_exits = 0)]
fn a_stack_address_that_is_not_canonical_is_a_fault() {
    // SAFETY: None: this is the crime. The address leads nowhere, so nothing is read.
    unsafe {
        asm!("push rbp", "mov rbp, {}", "mov rax, [rbp]", "pop rbp", in(reg) 1_u64 << 47, out("rax") _)
    };
}

#[guest_test(max_exits = 0)]
fn a_step_is_a_trap_behind_the_instruction() {
    exceptions::on(Vector::Debug, |frame| {
        keep(frame);
        // SAFETY: Continues where it was, without TF: no more steps.
        unsafe { frame.registers().rflags &= !TRAP_FLAG };
        Next::Resume
    });
    // SAFETY: Flags are put back by the handler; the stack is as before.
    unsafe { asm!("pushfq", "or qword ptr [rsp], {tf}", "popfq", "nop", tf = const TRAP_FLAG) };
    assert_eq!(seen()[0], Vector::Debug as u64);
}

/// RFLAGS.TF (Intel SDM vol. 1, 3.4.3.3).
const TRAP_FLAG: u64 = 1 << 8;

#[guest_test(max_exits = 0)]
fn a_frame_tells_segments_flags_and_stack_of_what_was_interrupted() {
    skip_all(Vector::InvalidOpcode);
    let rsp: u64;
    // SAFETY: Reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    provoke::invalid_opcode();
    let [_, _, _, cs, ss, rflags, frame_rsp] = seen();
    assert_eq!((cs, ss), (gdt::CODE.into(), gdt::DATA.into()));
    assert_eq!(rflags & (1 << 9 | 1 << 1), 1 << 1, "interrupts are off, bit 1 is always 1");
    assert!(frame_rsp < rsp && rsp - frame_rsp < 256, "{frame_rsp:#x}, and {rsp:#x} in the caller");
}

#[guest_test(max_exits = 0)]
fn all_registers_survive_an_exception() {
    exceptions::on(Vector::InvalidOpcode, |frame| {
        // SAFETY: Continues behind the two bytes of `ud2`, where the test below goes on.
        unsafe { frame.registers().rip += 2 };
        black_box([u64::MAX; 32]);
        Next::Resume
    });
    let (difference, flags): (u64, u64);
    // SAFETY: The registers that are named are saved or declared. The handler continues behind `ud2`.
    unsafe {
        asm!(
            "push rbx", "push rbp",
            "mov eax, 1", "mov ebx, 2", "mov ecx, 3", "mov edx, 4", "mov esi, 5", "mov edi, 6", "mov ebp, 7",
            "mov r8d, 8", "mov r9d, 9", "mov r10d, 10", "mov r11d, 11", "mov r12d, 12", "mov r13d, 13",
            "mov r14d, 14", "mov r15d, 15",
            "stc", "std",
            "ud2",
            "pushfq",
            "cld",
            "xor rax, 1", "xor rbx, 2", "xor rcx, 3", "xor rdx, 4", "xor rsi, 5", "xor rdi, 6", "xor rbp, 7",
            "xor r8, 8", "xor r9, 9", "xor r10, 10", "xor r11, 11", "xor r12, 12", "xor r13, 13",
            "xor r14, 14", "xor r15, 15",
            "or rax, rbx", "or rax, rcx", "or rax, rdx", "or rax, rsi", "or rax, rdi", "or rax, rbp",
            "or rax, r8", "or rax, r9", "or rax, r10", "or rax, r11", "or rax, r12", "or rax, r13",
            "or rax, r14", "or rax, r15",
            "pop rcx", "pop rbp", "pop rbx",
            out("rax") difference, out("rcx") flags,
            out("rdx") _, out("rsi") _, out("rdi") _, out("r8") _, out("r9") _, out("r10") _,
            out("r11") _, out("r12") _, out("r13") _, out("r14") _, out("r15") _,
        );
    }
    assert_eq!(difference, 0);
    assert_eq!(flags & 0x401, 0x401, "carry and direction");
}

#[guest_test(max_exits = 1, prints = "x")]
fn a_handler_that_mends_what_is_wrong_has_the_instruction_tried_again() {
    exceptions::on(Vector::PageFault, |frame| {
        keep(frame);
        device_memory::map_hole().map_or(Next::Report, |()| Next::Resume)
    });
    // SAFETY: The console takes any byte. The handler maps the address before it is written.
    unsafe { (black_box(layout::CONSOLE_MMIO.0) as *mut u8).write_volatile(b'x') };
    // Not present, a write, by the kernel.
    assert_eq!(seen()[..3], [Vector::PageFault as u64, 2, layout::CONSOLE_MMIO.0]);
}

#[guest_test(should_fault = PageFault, address = 0x10, max_exits = 1, prints = "this one is too much for me\n")]
fn a_handler_may_leave_it_to_the_host() {
    exceptions::on(Vector::PageFault, |_| {
        println!("this one is too much for me");
        Next::Report
    });
    let _ = provoke::read(Gva(0x10));
}

#[guest_test(should_fault = InvalidOpcode, max_exits = 0)]
fn what_is_not_prepared_cannot_be_skipped() {
    skip_all(Vector::InvalidOpcode);
    // SAFETY: Faults, which is what the test wants.
    unsafe { asm!("ud2", options(nomem, nostack)) };
}

#[guest_test(should_fault = PageFault, address = 0x20, max_exits = 0)]
fn a_handler_can_be_taken_back() {
    skip_all(Vector::PageFault);
    let _ = provoke::read(Gva(0x18));
    exceptions::on_default(Vector::PageFault);
    let _ = provoke::read(Gva(0x20));
}

#[guest_test(max_exits = 0)]
fn a_handler_may_be_interrupted_by_another_exception() {
    exceptions::on(Vector::InvalidOpcode, |frame| {
        assert_eq!(provoke::divide(black_box(3), black_box(0)), 3);
        frame.skip()
    });
    skip_all(Vector::DivideError);
    provoke::invalid_opcode();
    assert_eq!(seen()[0], Vector::DivideError as u64);
}

/// Ends the guest with the error code of the next page fault.
fn exit_with_its_error_code() {
    exceptions::on(Vector::PageFault, |frame| guest_kernel::power::exit(frame.error_code as u32));
}

#[guest_test(exit_code = 3, max_exits = 0)]
fn writing_a_constant_is_told_as_a_write_to_a_page_that_is_there() {
    exit_with_its_error_code();
    // SAFETY: None: this is the crime. The page is read-only, so nothing is changed.
    unsafe { (black_box(layout::BOOT_INFO.0) as *mut u8).write_volatile(0) };
}

#[guest_test(exit_code = 17, max_exits = 0)]
fn executing_the_stack_is_told_as_a_fetch_from_a_page_that_is_there() {
    exit_with_its_error_code();
    // SAFETY: None: this is the crime. The page cannot be executed, so the call itself faults.
    let code: extern "C" fn() = unsafe { core::mem::transmute(black_box(layout::STACK.0) as *const ()) };
    code();
}

#[guest_test(should_fault = DivideError, max_exits = 0)]
fn dividing_by_zero_faults() {
    let _ = provoke::divide(black_box(1), black_box(0));
}

#[guest_test(should_fault = InvalidOpcode, max_exits = 0)]
fn ud2_faults() {
    provoke::invalid_opcode();
}

#[guest_test(should_fault = GeneralProtection, max_exits = 0)]
fn an_address_that_is_not_canonical_faults() {
    let _ = provoke::read(Gva(1 << 63));
}

#[guest_test(should_fault = DoubleFault, max_exits = 0)]
fn a_stack_that_runs_out_is_a_double_fault() {
    black_box(overflow(1));
}

#[guest_test(max_exits = 0, exit_code = 3)]
fn a_double_fault_is_handled_on_its_own_stack() {
    exceptions::on(Vector::DoubleFault, |frame| {
        let (own, guard) = (&raw const *frame as u64, layout::STACK_GUARD.0..layout::STACK.0);
        let is_on_its_stack = (layout::FAULT_STACK.0..layout::FAULT_STACK_END.0).contains(&own);
        let has_hit_the_guard = guard.contains(&frame.cr2);
        guest_kernel::power::exit(u32::from(is_on_its_stack) + 2 * u32::from(has_hit_the_guard));
    });
    black_box(overflow(1));
}

/// Each call keeps a page on the stack until the one below it returns, which never happens.
#[expect(unconditional_recursion, reason = "the stack is what should run out")]
fn overflow(depth: u64) -> u64 {
    let page = black_box([depth; 512]);
    overflow(depth + 1) + page[0]
}

#[guest_test(should_fault, max_exits = 0)]
fn without_a_table_an_exception_is_the_end_of_the_machine() {
    exceptions::on(Vector::InvalidOpcode, |_| panic!("there is no table to find this handler by"));
    idt::unload();
    provoke::invalid_opcode();
}
