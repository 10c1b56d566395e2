//! Programs of a few bytes.

use guest_kernel::prelude::*;
use guest_kernel::user::{End, Process, Scheduler};
use user_library::abi::SystemCall;

/// Machine code as assembly, and behind it `end`s with its bytes: `code!("hlt")`. Operands are as for `asm!`, constants
/// only. The code must run wherever it lies.
macro_rules! code {
    ($($line:literal),+ $(; $($name:ident = $value:expr),+)? $(,)?) => {{
        let (start, end): (*const u8, *const u8);
        // SAFETY: The code goes into constant memory, where nobody executes it; what is executed reads two addresses.
        unsafe {
            core::arch::asm!(
                ".pushsection .rodata.programs, \"a\", @progbits",
                "90:",
                $($line,)+
                "91:",
                ".popsection",
                "lea {start}, [rip + 90b]",
                "lea {end}, [rip + 91b]",
                start = out(reg) start,
                end = out(reg) end,
                $($($name = const $value,)+)?
                options(nomem, nostack, preserves_flags),
            );
            core::slice::from_raw_parts(start, end.addr() - start.addr())
        }
    }};
}
pub(crate) use code;

/// Runs a program of these bytes, and tells how it ended.
pub(crate) fn end_of(code: &[u8]) -> End {
    end_of_process(process(code))
}

pub(crate) fn process(code: &[u8]) -> Process {
    Process::from_code("code", code).expect("there is memory for a page of code")
}

pub(crate) fn end_of_process(process: Process) -> End {
    let mut scheduler = Scheduler::new();
    scheduler.start(process);
    let mut ended = scheduler.run();
    assert_eq!(ended.len(), 1);
    ended.remove(0).end
}

/// A program that makes one call, and exits with what RAX then holds.
pub(crate) fn calling(number: u64, arguments: [u64; 3]) -> Vec<u8> {
    let mut code = Vec::new();
    // `mov` of 64 bits to RAX, RDI, RSI and RDX.
    let [first, second, third] = arguments;
    for (opcode, word) in [(0xB8, number), (0xBF, first), (0xBE, second), (0xBA, third)] {
        code.extend([0x48, opcode]);
        code.extend(word.to_le_bytes());
    }
    code.extend([0x0F, 0x05]);
    code.extend(exit_with_rax());
    code
}

/// `mov rdi, rax; mov eax, 0; syscall`
fn exit_with_rax() -> [u8; 10] {
    const { assert!(SystemCall::Exit as u64 == 0) };
    [0x48, 0x89, 0xC7, 0xB8, 0, 0, 0, 0, 0x0F, 0x05]
}
