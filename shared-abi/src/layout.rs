//! The map of guest-physical memory at start.
//!
//! ```text
//! GPA           what                      rights  size
//! 0x0000_0000 ┌ null page                 ---     4 KiB    never mapped: a null dereference faults
//! 0x0000_1000 ├ boot info                 r--     4 KiB    `BootInfo`
//! 0x0000_2000 ├ arguments                 r--     56 KiB   the guest's command line
//! 0x0001_0000 ├ free                      rw-     128 KiB
//! 0x0003_0000 ├ machine check stack guard ---     4 KiB    never mapped
//! 0x0003_1000 ├ machine check stack       rw-     16 KiB   for machine checks, which come at any instruction
//! 0x0003_5000 ├ NMI stack guard           ---     4 KiB    never mapped
//! 0x0003_6000 ├ NMI stack                 rw-     16 KiB   for NMIs, which do so too
//! 0x0003_A000 ├ fault stack guard         ---     4 KiB    never mapped
//! 0x0003_B000 ├ fault stack               rw-     16 KiB   for the double fault, which needs one of its own
//! 0x0003_F000 ├ stack guard               ---     4 KiB    never mapped: a stack overflow faults
//! 0x0004_0000 ├ stack                     rw-     256 KiB  grows down from 0x0008_0000
//! 0x0008_0000 ├ page tables               rw-     512 KiB  PML4 first; when they need more than this, all of
//!             │                                            them lie at the end of the largest free low range
//! 0x0010_0000 ├ kernel image              r-x …   each segment with its own rights
//!             ├ free RAM                  rw-
//! 0xC000_0000 ├ hole                      ---     1 GiB    interrupt controllers and devices; no RAM
//! 0x1_0000_0000 free RAM                  rw-     what RAM is left beyond the first 3 GiB
//! ```
//!
//! Every mapping is identity: GVA = GPA. A foreign image may lie anywhere in free RAM; ours starts at 1 MiB.

use crate::addr::{Gpa, PAGE_SIZE};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The page at address 0, never mapped.
pub const NULL_PAGE: Gpa = Gpa(0);
/// Size of the null page, in bytes.
pub const NULL_PAGE_SIZE: u64 = PAGE_SIZE;

/// Where the host writes [`BootInfo`](crate::BootInfo).
pub const BOOT_INFO: Gpa = Gpa(NULL_PAGE.0 + NULL_PAGE_SIZE);
/// Room for the boot info, in bytes.
pub const BOOT_INFO_SIZE: u64 = PAGE_SIZE;

/// Where the guest's arguments lie: NUL-terminated strings, one after the other.
pub const ARGUMENTS: Gpa = Gpa(BOOT_INFO.0 + BOOT_INFO_SIZE);
/// The most that all arguments with their NULs may take, in bytes.
pub const ARGUMENTS_MAX_SIZE: u64 = 56 * KIB;

/// First byte of the stack; it grows down towards this address.
pub const STACK: Gpa = Gpa(256 * KIB);
/// Size of the stack, in bytes.
pub const STACK_SIZE: u64 = 256 * KIB;
/// First address above the stack: the initial stack pointer.
pub const STACK_END: Gpa = Gpa(STACK.0 + STACK_SIZE);
/// Size of the unmapped page below the stack, in bytes.
pub const STACK_GUARD_SIZE: u64 = PAGE_SIZE;
/// The unmapped page below the stack.
pub const STACK_GUARD: Gpa = Gpa(STACK.0 - STACK_GUARD_SIZE);

/// Size of the stack for double faults, in bytes; those for NMIs and machine checks have as much.
pub const FAULT_STACK_SIZE: u64 = 16 * KIB;
/// First byte of the stack for double faults: a stack that overflows has no room for what the CPU pushes.
pub const FAULT_STACK: Gpa = Gpa(STACK_GUARD.0 - FAULT_STACK_SIZE);
/// First address above it: where a double fault starts to push. The stack's guard follows.
pub const FAULT_STACK_END: Gpa = STACK_GUARD;
/// Size of the unmapped page below it, in bytes.
pub const FAULT_STACK_GUARD_SIZE: u64 = PAGE_SIZE;
/// The unmapped page below it.
pub const FAULT_STACK_GUARD: Gpa = Gpa(FAULT_STACK.0 - FAULT_STACK_GUARD_SIZE);

/// First byte of the stack for NMIs. They come at any instruction, also where RSP is not the kernel's.
pub const NMI_STACK: Gpa = Gpa(NMI_STACK_END.0 - FAULT_STACK_SIZE);
/// First address above it: where an NMI starts to push. The double fault's guard follows.
pub const NMI_STACK_END: Gpa = FAULT_STACK_GUARD;
/// The unmapped page below it.
pub const NMI_STACK_GUARD: Gpa = Gpa(NMI_STACK.0 - FAULT_STACK_GUARD_SIZE);

/// First byte of the stack for machine checks, which may interrupt an NMI.
pub const MACHINE_CHECK_STACK: Gpa = Gpa(MACHINE_CHECK_STACK_END.0 - FAULT_STACK_SIZE);
/// First address above it: where a machine check starts to push. The NMI's guard follows.
pub const MACHINE_CHECK_STACK_END: Gpa = NMI_STACK_GUARD;
/// The unmapped page below it.
pub const MACHINE_CHECK_STACK_GUARD: Gpa = Gpa(MACHINE_CHECK_STACK.0 - FAULT_STACK_GUARD_SIZE);

/// Where the first page tables lie when they fit into [`LOW_PAGE_TABLES_SIZE`].
pub const LOW_PAGE_TABLES: Gpa = STACK_END;
/// Room for page tables below the kernel image, in bytes: 128 tables.
pub const LOW_PAGE_TABLES_SIZE: u64 = 512 * KIB;

/// Where our own guest kernels are linked (`guest-kernel/link.ld` says the same; a test compares).
pub const KERNEL: Gpa = Gpa(MIB);

/// End of the RAM that lies below the device hole.
pub const LOW_RAM_MAX_END: Gpa = Gpa(3 * GIB);
/// Start of the RAM that lies above the device hole.
pub const HIGH_RAM: Gpa = Gpa(4 * GIB);

/// The console as a device in memory: the first page of the hole. Writes print all their bytes.
pub const CONSOLE_MMIO: Gpa = LOW_RAM_MAX_END;
/// The same, but KVM keeps the writes until the next exit once the channel is open ([`channel`](crate::channel)).
pub const CONSOLE_COALESCED_MMIO: Gpa = Gpa(CONSOLE_MMIO.0 + PAGE_SIZE);

/// The least RAM a machine can have, in bytes.
pub const MIN_RAM_SIZE: u64 = 2 * MIB;
/// The most RAM a machine can have, in bytes: with the hole it ends within 39 address bits. A CPU may have fewer; the
/// host looks.
pub const MAX_RAM_SIZE: u64 = 256 * GIB;

// What must not overlap, and what must stay aligned.
const _: () = assert!(ARGUMENTS.0 + ARGUMENTS_MAX_SIZE <= MACHINE_CHECK_STACK_GUARD.0);
const _: () = assert!(STACK_GUARD.0 + STACK_GUARD_SIZE == STACK.0);
const _: () = assert!(LOW_PAGE_TABLES.0 + LOW_PAGE_TABLES_SIZE <= KERNEL.0);
const _: () = assert!(KERNEL.0 < MIN_RAM_SIZE);
const _: () = assert!(MAX_RAM_SIZE + (HIGH_RAM.0 - LOW_RAM_MAX_END.0) <= 1 << 39);
const _: () = assert!(STACK_END.0.is_multiple_of(16) && FAULT_STACK_END.0.is_multiple_of(16));
const _: () = assert!(NMI_STACK_END.0.is_multiple_of(16) && MACHINE_CHECK_STACK_END.0.is_multiple_of(16));
const _: () = assert!(
    BOOT_INFO.page_offset() | ARGUMENTS.page_offset() | STACK.page_offset() | LOW_PAGE_TABLES.page_offset()
        == 0
);
