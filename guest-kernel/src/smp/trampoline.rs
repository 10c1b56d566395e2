//! The trampoline: from where a CPU wakes, in 1978, to 64-bit mode.
//!
//! A CPU that is started by INIT and SIPI knows one thing: the page at which it shall begin, given in the SIPI as a
//! number from 0 to 255. It executes 16-bit code there, without paging and protection, as an 8086 would. All that the
//! VMM's `KVM_SET_SREGS` does for the first CPU (`vmm/src/boot/cpu_mode.rs`), this code does by hand, in the order that
//! the manual demands (Intel SDM vol. 3A, 10.8.5 and 9.4.4.1):
//!
//! ```text
//! real mode, CS = page * 256, IP = 0      paging off, all segments are shifts
//!   1  load a GDT; CR0.PE = 1               ─► protected mode, as soon as CS is loaded by a far jump
//! 32-bit protected mode                   flat segments
//!   2  CR4.PAE; CR3 = the PML4; EFER.LME, NXE
//!   3  CR0.PG = 1                           ─► long mode, as soon as CS is loaded with a 64-bit segment
//! 64-bit mode
//!   4  RSP, RDI; jump to `arrive`
//! ```
//!
//! Between steps 3 and 4 the same instructions are fetched with paging on. So the page must be mapped to itself, and be
//! executable; and as nothing here may be written and executed at once, the code is put into the page first, and then
//! the page becomes executable. What changes from CPU to CPU, a stack and the like, lies in the page behind it.
//!
//! Addresses are the page's own: the code is assembled somewhere in the image, but runs in low memory. Only differences
//! of labels are used, and `PAGE` is added where an absolute address is needed.

use core::ptr;

use shared_abi::addr::PAGE_SIZE;
use shared_abi::{Gpa, Gva, layout};

use super::start::StartError;
use super::{CpuId, relax};
use crate::cpu::apic::{self, Command, Destination};
use crate::cpu::cr3;
use crate::hypercall;
use crate::memory::paging::{AddressSpace, PageSize, Rights};
use crate::sync::Mutex;

/// The page that CPUs start at: the first that is free below 1 MiB. The one behind it has their parameters.
const PAGE: Gpa = Gpa(layout::ARGUMENTS.0 + layout::ARGUMENTS_MAX_SIZE);
const PARAMETERS: Gpa = Gpa(PAGE.0 + PAGE_SIZE);

const _: () = assert!(PAGE.0.is_multiple_of(PAGE_SIZE) && PAGE.0 / PAGE_SIZE <= 0xFF, "a SIPI can name it");
const _: () = assert!(PARAMETERS.0 + PAGE_SIZE <= layout::MACHINE_CHECK_STACK_GUARD.0, "both are free");

/// What the trampoline reads.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    page_tables: u64,
    stack: u64,
    argument: u64,
    entry: u64,
}

/// The code; on the host there is none.
#[cfg(not(target_os = "none"))]
mod code {
    pub(super) fn bytes() -> &'static [u8] {
        panic!("{}", crate::cpu::NOT_IN_A_MACHINE);
    }
}

/// The code.
#[cfg(target_os = "none")]
mod code {
    use super::{PAGE, PARAMETERS, Parameters};

    /// Bits of CR0, CR4 and EFER: those of `vmm/src/boot/cpu_mode.rs`, so that all CPUs are in one mode.
    const CR0_PE: u32 = 1 << 0;
    const CR0: u32 = CR0_PE | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31; // PE, MP, ET, NE, WP, PG
    const CR4: u32 = 1 << 5 | 1 << 9 | 1 << 10; // PAE, OSFXSR, OSXMMEXCPT
    const EFER: u32 = 0xC000_0080;
    const EFER_BITS: u32 = 1 << 8 | 1 << 11; // LME, NXE

    /// The trampoline's GDT. 64-bit code and data are where the kernel's GDT has them.
    const CODE_64: u16 = 0x08;
    const DATA: u16 = 0x10;
    const CODE_32: u16 = 0x18;

    core::arch::global_asm!(
        ".pushsection .rodata.trampoline, \"a\", @progbits",
        ".balign 16",
        "trampoline_start:",
        ".code16",
        // 1. Segments count from the page: CS came with the SIPI.
        "cli",
        "movw %cs, %ax",
        "movw %ax, %ds",
        "lgdtl trampoline_gdt_register - trampoline_start",
        "movl %cr0, %eax",
        "orl ${pe}, %eax",
        "movl %eax, %cr0",
        "ljmpl ${code_32}, ${page} + trampoline_32 - trampoline_start",
        ".code32",
        "trampoline_32:",
        "movw ${data}, %ax",
        "movw %ax, %ds",
        "movw %ax, %es",
        "movw %ax, %ss",
        "xorw %ax, %ax",
        "movw %ax, %fs",
        "movw %ax, %gs",
        // 2. Long mode is made ready: it begins with paging.
        "movl ${cr4}, %eax",
        "movl %eax, %cr4",
        "movl {parameters} + {page_tables}, %eax",
        "movl %eax, %cr3",
        "movl ${efer}, %ecx",
        "xorl %edx, %edx",
        "movl ${efer_bits}, %eax",
        "wrmsr",
        // 3.
        "movl ${cr0}, %eax",
        "movl %eax, %cr0",
        "ljmpl ${code_64}, ${page} + trampoline_64 - trampoline_start",
        ".code64",
        "trampoline_64:",
        // 4.
        "movl ${parameters}, %eax",
        "movq {stack}(%rax), %rsp",
        "movq {argument}(%rax), %rdi",
        "jmpq *{entry}(%rax)",
        ".balign 8",
        "trampoline_gdt:",
        ".quad 0",
        ".quad 0x00AF9B000000FFFF", // 0x08: 64-bit code
        ".quad 0x00CF93000000FFFF", // 0x10: data
        ".quad 0x00CF9B000000FFFF", // 0x18: 32-bit code
        "trampoline_gdt_register:",
        ".word trampoline_gdt_register - trampoline_gdt - 1",
        ".long {page} + trampoline_gdt - trampoline_start",
        "trampoline_end:",
        ".popsection",
        page = const PAGE.0,
        parameters = const PARAMETERS.0,
        page_tables = const core::mem::offset_of!(Parameters, page_tables),
        stack = const core::mem::offset_of!(Parameters, stack),
        argument = const core::mem::offset_of!(Parameters, argument),
        entry = const core::mem::offset_of!(Parameters, entry),
        pe = const CR0_PE,
        cr0 = const CR0,
        cr4 = const CR4,
        efer = const EFER,
        efer_bits = const EFER_BITS,
        code_64 = const CODE_64,
        data = const DATA,
        code_32 = const CODE_32,
        options(att_syntax),
    );

    unsafe extern "C" {
        #[link_name = "trampoline_start"]
        static START: u8;
        #[link_name = "trampoline_end"]
        static END: u8;
    }

    /// All of it, where the linker has put it.
    pub(super) fn bytes() -> &'static [u8] {
        let (start, end) = (&raw const START, &raw const END);
        // SAFETY: Between the two labels lies the code, in memory that nobody writes.
        unsafe { core::slice::from_raw_parts(start, end.offset_from_unsigned(start)) }
    }
}

/// One CPU at a time is on the trampoline. Whether it is in its page yet.
static IS_LAID: Mutex<bool> = Mutex::new(false);

/// How long a CPU may take to come, and when it is called once more (Intel SDM vol. 3A, 9.4.4.1: a first SIPI may be lost).
const PATIENCE_NS: u64 = 2_000_000_000;
const CALL_AGAIN_NS: u64 = 100_000_000;

/// Starts `cpu` by INIT and SIPI, and waits until `has_come`.
///
/// The manual has 10 ms pass between the two, for buses of the nineties. KVM keeps both until the CPU's thread looks, in
/// their order, so nothing is gained by waiting.
///
/// # Errors
/// [`StartError::NoAnswer`].
pub(super) fn start(
    cpu: CpuId,
    entry_gva: Gva,
    stack_gva: Gva,
    has_come: impl Fn() -> bool,
) -> Result<(), StartError> {
    let mut is_laid = IS_LAID.lock();
    if !*is_laid {
        lay()?;
        *is_laid = true;
    }
    let page_tables = cr3::read().0;
    write_parameters(Parameters {
        page_tables,
        stack: stack_gva.0,
        argument: cpu.number() as u64,
        entry: entry_gva.0,
    });
    let to = Destination::Cpu(cpu.number() as u32);
    let startup = Command::Startup((PAGE.0 / PAGE_SIZE) as u8);
    apic::send(Command::Init, to);
    apic::send(startup, to);
    let start_ns = hypercall::monotonic_ns();
    let mut was_called_again = false;
    while !has_come() {
        relax();
        let waited_ns = hypercall::monotonic_ns() - start_ns;
        if waited_ns > PATIENCE_NS {
            return Err(StartError::NoAnswer(cpu));
        }
        if waited_ns > CALL_AGAIN_NS && !was_called_again {
            apic::send(startup, to);
            was_called_again = true;
        }
    }
    Ok(())
}

/// Puts the code into its page, and makes that executable.
fn lay() -> Result<(), StartError> {
    let code = code::bytes();
    assert!(code.len() as u64 <= PAGE_SIZE, "the trampoline fits into its page");
    // SAFETY: The page is RAM below 1 MiB that nobody is given (`memory::frames`), mapped to itself and still writable, and
    // the code is not longer.
    unsafe { ptr::copy_nonoverlapping(code.as_ptr(), PAGE.0 as *mut u8, code.len()) };
    let mut kernel = AddressSpace::kernel();
    // SAFETY: Nobody writes to the page any more.
    unsafe { kernel.protect(Gva(PAGE.0), PageSize::Size4K, Rights::READ_EXECUTE) }
        .map_err(StartError::NoStack)
}

fn write_parameters(parameters: Parameters) {
    // SAFETY: RAM below 1 MiB that nobody is given, mapped to itself and aligned; only a CPU on the trampoline reads it,
    // and one that is about to come there is this one's doing.
    unsafe { ptr::write_volatile(PARAMETERS.0 as *mut Parameters, parameters) };
}
