//! What a program may not do ends it, and nothing else.

use guest_kernel::exceptions::Vector;
use guest_kernel::guest_test;
use guest_kernel::user::{End, IMAGE, STACK};
use user_library::abi::SystemCall;

use crate::code::{code, end_of};

/// What a program of these bytes dies of: the exception, the address of a page fault, and RIP.
fn death(code: &[u8]) -> (Vector, Option<u64>, u64) {
    match end_of(code) {
        End::Died(frame) => {
            let vector = frame.vector().expect("a vector that CPUs have");
            (vector, frame.fault_address().map(|gva| gva.0), frame.rip)
        }
        end => panic!("the program {end}"),
    }
}

#[guest_test(max_exits = 0, timeout_ms = 20000)]
fn privileged_instructions_are_for_ring_0() {
    let crimes: [(&str, &[u8]); 14] = [
        ("hlt", code!("hlt")),
        ("cli", code!("cli")),
        ("sti", code!("sti")),
        ("in", code!("in al, 0xe9")),
        ("out", code!("out 0xf4, al")),
        ("rdmsr", code!("rdmsr")),
        ("wrmsr", code!("wrmsr")),
        ("mov from cr3", code!("mov rax, cr3")),
        ("mov to cr0", code!("mov cr0, rax")),
        ("lidt", code!("lidt [rsp]")),
        ("ltr", code!("ltr ax")),
        ("invlpg", code!("invlpg [rsp]")),
        ("swapgs", code!("swapgs")),
        ("wbinvd", code!("wbinvd")),
    ];
    for (name, code) in crimes {
        assert_eq!(death(code), (Vector::GeneralProtection, None, IMAGE), "{name}");
    }
}

#[guest_test(max_exits = 0)]
fn gates_of_others_are_not_for_programs() {
    assert_eq!(death(code!("int 0x21")), (Vector::GeneralProtection, None, IMAGE));
    assert_eq!(death(code!("int 0x20")), (Vector::GeneralProtection, None, IMAGE));
    assert_eq!(death(code!("int3")), (Vector::Breakpoint, None, IMAGE + 1));
}

#[guest_test(max_exits = 0)]
fn what_no_cpu_can_do_ends_a_program_too() {
    assert_eq!(death(code!("ud2")), (Vector::InvalidOpcode, None, IMAGE));
    assert_eq!(death(code!("xor ecx, ecx", "div ecx")), (Vector::DivideError, None, IMAGE + 2));
    let (vector, address, _) = death(code!("mov rax, 0x8000000000000000", "mov al, [rax]"));
    assert_eq!((vector, address), (Vector::GeneralProtection, None));
}

#[guest_test(max_exits = 0)]
fn the_kernels_memory_cannot_be_touched() {
    let heap = alloc::boxed::Box::new(7_u64);
    let own: [u64; 4] =
        [0x10_0000, shared_abi::layout::BOOT_INFO.0, &raw const *heap as u64, &raw const heap as u64];
    for address in own {
        let mut read = alloc::vec![0x48, 0xB8];
        read.extend(address.to_le_bytes());
        let mut write = read.clone();
        read.extend([0x8A, 0x00]);
        write.extend([0x88, 0x00]);
        assert_eq!(death(&read), (Vector::PageFault, Some(address), IMAGE + 10));
        assert_eq!(death(&write), (Vector::PageFault, Some(address), IMAGE + 10));
    }
    assert_eq!(*heap, 7);
}

#[guest_test(max_exits = 0)]
fn a_jump_to_the_kernel_arrives_nowhere() {
    assert_eq!(death(code!("mov eax, 0x100000", "jmp rax")), (Vector::PageFault, Some(0x10_0000), 0x10_0000));
}

#[guest_test(max_exits = 0)]
fn a_jump_to_where_syscall_leads_is_no_call() {
    // By `syscall` the program learns nothing of LSTAR; the test does.
    let lstar = guest_kernel::cpu::msr::read(guest_kernel::cpu::msr::LSTAR);
    assert_eq!(lstar, 0, "nobody has started a program yet");
    assert_eq!(end_of(code!("xor eax, eax", "xor edi, edi", "syscall")), End::Exited(0));

    let lstar = guest_kernel::cpu::msr::read(guest_kernel::cpu::msr::LSTAR);
    let mut code = alloc::vec![0x48, 0xB9];
    // RCX as a call would leave it, were there a `syscall` before that place.
    code.extend((IMAGE + 4).to_le_bytes());
    code.extend([0x48, 0xB8]);
    code.extend(lstar.to_le_bytes());
    code.extend([0xFF, 0xE0]);
    assert_eq!(death(&code), (Vector::PageFault, Some(lstar), lstar));
}

#[guest_test(max_exits = 0)]
fn code_cannot_be_written_and_data_not_executed() {
    assert_eq!(death(code!("mov byte ptr [rip], 0x90")), (Vector::PageFault, Some(IMAGE + 7), IMAGE));
    let (vector, address, rip) = death(code!("mov word ptr [rsp], 0x9090", "jmp rsp"));
    assert_eq!((vector, address), (Vector::PageFault, Some(rip)));
}

#[guest_test(max_exits = 0, timeout_ms = 20000)]
fn a_stack_that_runs_out_ends_its_program() {
    let (vector, address, rip) = death(code!("20: push 0", "jmp 20b"));
    assert_eq!((vector, address, rip), (Vector::PageFault, Some(STACK - 8), IMAGE));
}

#[guest_test(max_exits = 0)]
fn a_stack_pointer_that_leads_nowhere_does_not_matter_to_the_kernel() {
    let code = code!(
        "mov rsp, 0x10", "mov eax, {id}", "syscall", "mov eax, {id}", "int 0x80",
        "mov rsp, 0x8000000000000000", "mov eax, {id}", "syscall",
        "mov rdi, rax", "mov eax, {exit}", "syscall";
        id = SystemCall::ProcessId as u64, exit = SystemCall::Exit as u64
    );
    assert_eq!(end_of(code), End::Exited(1));
}

#[guest_test(max_exits = 0)]
fn a_step_by_the_trap_flag_ends_the_program_that_has_set_it() {
    let code = code!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "nop");
    assert_eq!(death(code).0, Vector::Debug);
}

#[guest_test(max_exits = 0)]
fn a_flag_of_a_program_does_not_lift_the_kernels_protection() {
    let code = code!("pushfq", "or qword ptr [rsp], 0x40000", "popfq", "ud2");
    assert_eq!(death(code).0, Vector::InvalidOpcode);
    let flags: u64;
    // SAFETY: Pushes a word and takes it back.
    unsafe { core::arch::asm!("pushfq", "pop {}", out(reg) flags) };
    assert_eq!(flags >> 18 & 1, 0, "with RFLAGS.AC the kernel could touch pages of ring 3");
}
