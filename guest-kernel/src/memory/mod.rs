//! Memory: which frames of RAM are free, and which addresses lead to them.
//!
//! | module | what it is |
//! |---|---|
//! | [`frames`] | free RAM, 4 KiB at a time or in runs |
//! | [`paging`] | page tables: map, unmap, protect, translate |
//! | [`heap`] | `Vec`, `String`, `Box` |
//! | [`stack`] | stacks with a guard page below |
//! | [`tlb`] | what CPUs remember of page tables, and how they are made to forget |
//!
//! Each starts when it is first used: a program that needs none of them pays nothing.
//!
//! Where things lie in the kernel's virtual memory:
//!
//! ```text
//! 0x0000_0000_0000_0000 ┌ RAM, mapped to itself      512 GiB  as the VMM has left it (shared-abi/src/layout.rs)
//! 0x0000_0080_0000_0000 ├ user space                          empty here; each process has a space of its own
//! 0x0000_8000_0000_0000 ├ not canonical
//! 0xFFFF_8000_0000_0000 ├ heap                       256 GiB  grows upwards
//! 0xFFFF_8040_0000_0000 ├ stacks                     128 GiB  each above a page that is never mapped
//! 0xFFFF_8060_0000_0000 ├ free                       128 GiB  for programs that map something
//! 0xFFFF_8080_0000_0000 └ nothing
//! ```
//!
//! What is the kernel's is the same in every address space: two entries of the PML4, the first and number 256.

pub mod frames;
pub mod heap;
pub mod paging;
pub mod stack;
pub mod tlb;

const GIB: u64 = 1 << 30;

/// Size of what one entry of the PML4 covers, in bytes.
pub const SLOT_SIZE: u64 = 512 * GIB;

/// Where user space starts: each [`paging::AddressSpace::new_user`] has its own.
pub const USER_START: u64 = SLOT_SIZE;
/// Where it ends.
pub const USER_END: u64 = 1 << 47;

/// Where the part of the kernel's memory starts that is not mapped to itself.
pub const KERNEL_HIGH: u64 = 0xFFFF_8000_0000_0000;
/// Where it ends.
pub const KERNEL_HIGH_END: u64 = KERNEL_HIGH + SLOT_SIZE;

/// Where the heap lies.
pub const HEAP: u64 = KERNEL_HIGH;
/// Where it must end.
pub const HEAP_END: u64 = HEAP + 256 * GIB;
/// Where stacks lie.
pub const STACKS: u64 = HEAP_END;
/// Where they must end.
pub const STACKS_END: u64 = STACKS + 128 * GIB;
/// Addresses that the kernel never uses: a program may map what it likes here.
pub const FREE_ADDRESSES: u64 = STACKS_END;
/// Where these end.
pub const FREE_ADDRESSES_END: u64 = FREE_ADDRESSES + 128 * GIB;

const _: () = assert!(FREE_ADDRESSES_END == KERNEL_HIGH_END);
const _: () =
    assert!(shared_abi::layout::MAX_RAM_SIZE + GIB <= SLOT_SIZE, "RAM and the hole fit into one entry");
