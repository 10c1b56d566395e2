//! Deaths by memory: reading and writing what is not there, or not to be touched.

use core::arch::asm;
use core::hint::black_box;
use core::ptr;

use guest_kernel::boot_info;
use guest_kernel::memory::stack::Stack;
use shared_abi::layout;

use super::{Death, death};

pub(crate) const DEATHS: &[Death] = &[
    death("null-read", "reads a field of nothing", null_read),
    death("null-write", "writes a field of nothing", null_write),
    death("wild-read", "reads where no RAM is", wild_read),
    death("negative-offset", "writes just below address 0", negative_offset),
    death("non-canonical-read", "reads an address that no table can map", non_canonical_read),
    death("rodata-write", "writes a constant", rodata_write),
    death("text-write", "writes its own code", text_write),
    death("stack-overflow", "calls itself until the stack has run out", || _ = stack_overflow(black_box(1))),
    death("own-stack-overflow", "does so on a stack that it has made", run_on_own_stack),
    death("unmapped-stack-read", "reads from a stack that is gone", unmapped_stack_read),
    death("huge-local", "has a variable larger than the stack", huge_local),
    death("misaligned-sse", "moves 16 bytes from an odd address", misaligned_sse),
    death("reserved-bit", "has a reserved bit set in an entry of its page tables", reserved_bit),
    death("write-protected", "writes through an entry that it has made read-only", write_protected),
];

fn null_read() {
    // SAFETY: None: this is the crime, as in all of the gallery.
    // DIES HERE: null-read
    black_box(unsafe { ptr::read_volatile(black_box(8_u64) as *const u64) });
}

fn null_write() {
    // SAFETY: None.
    // DIES HERE: null-write
    unsafe { ptr::write_volatile(black_box(8_u64) as *mut u64, 1) };
}

fn wild_read() {
    // SAFETY: None.
    // DIES HERE: wild-read
    black_box(unsafe { ptr::read_volatile(black_box(0x7000_0000_u64) as *const u32) });
}

fn negative_offset() {
    let nothing: *mut u64 = ptr::null_mut();
    // SAFETY: None.
    // DIES HERE: negative-offset
    unsafe { ptr::write_volatile(black_box(nothing).wrapping_sub(2), 1) };
}

fn non_canonical_read() {
    // SAFETY: None.
    // DIES HERE: non-canonical-read
    black_box(unsafe { ptr::read_volatile(black_box(0xDEAD_0000_0000_0000_u64) as *const u64) });
}

static CONSTANT: u64 = 42;

fn rodata_write() {
    // SAFETY: None.
    // DIES HERE: rodata-write
    unsafe { ptr::write_volatile(black_box(&raw const CONSTANT).cast_mut(), 1) };
}

fn text_write() {
    // SAFETY: None.
    // DIES HERE: text-write
    unsafe { ptr::write_volatile(black_box(text_write as *const () as *mut u8), 0xCC) };
}

/// Each call keeps 512 bytes on the stack until the one below it returns, which never happens.
#[expect(unconditional_recursion, reason = "the stack is what should run out")]
// DIES HERE: stack-overflow
fn stack_overflow(depth: u64) -> u64 {
    let page = black_box([depth; 64]);
    stack_overflow(depth + 1) + page[0]
}

fn run_on_own_stack() {
    let mut stack = Stack::allocate(64 << 10).expect("16 of all frames");
    stack.run(run_out);
}

extern "C" fn run_out() {
    black_box(own_stack_overflow(black_box(1)));
}

#[expect(unconditional_recursion, reason = "the stack is what should run out")]
// DIES HERE: own-stack-overflow
fn own_stack_overflow(depth: u64) -> u64 {
    let page = black_box([depth; 512]);
    own_stack_overflow(depth + 1) + page[0]
}

fn unmapped_stack_read() {
    let stack = Stack::allocate(4096).expect("a frame");
    let start = black_box(stack.start());
    drop(stack);
    // SAFETY: None.
    // DIES HERE: unmapped-stack-read
    black_box(unsafe { ptr::read_volatile(start.0 as *const u64) });
}

/// The compiler touches each page of a large frame in turn, so that none steps over the guard.
// DIES HERE: huge-local
fn huge_local() {
    black_box([black_box(1_u8); 1 << 20]);
}

/// `movaps` wants its operand at a multiple of 16.
fn misaligned_sse() {
    let bytes = black_box([0_u128; 2]);
    let odd = bytes.as_ptr().wrapping_byte_add(1);
    // SAFETY: None.
    // DIES HERE: misaligned-sse
    unsafe { asm!("movaps xmm0, [{}]", in(reg) odd, options(nostack)) };
}

/// The second entry of the PML4, which nothing uses: it maps 512 GiB, and bit 7 of it must be 0.
fn reserved_bit() {
    const PRESENT_WRITABLE: u64 = 0b11;
    const MUST_BE_ZERO: u64 = 1 << 7;
    let pml4 = boot_info().page_tables.start as *mut u64;
    // SAFETY: The page tables are RAM that is mapped at its own address, and nothing uses this entry.
    unsafe { pml4.add(1).write_volatile(layout::LOW_PAGE_TABLES.0 | PRESENT_WRITABLE | MUST_BE_ZERO) };
    // SAFETY: None.
    // DIES HERE: reserved-bit
    black_box(unsafe { ptr::read_volatile(black_box(1_u64 << 39) as *const u64) });
}

/// The arguments are read-only by the tables of the start.
fn write_protected() {
    // SAFETY: None.
    // DIES HERE: write-protected
    unsafe { ptr::write_volatile(black_box(layout::ARGUMENTS.0) as *mut u8, b'?') };
}
