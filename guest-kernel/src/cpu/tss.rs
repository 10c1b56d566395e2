//! The TSS: the stack for an exception that finds none.
//!
//! Switching tasks is what its name is left of. In 64-bit mode the CPU reads stack pointers from it, and never writes
//! it. Ours has one: gates that ask for [`FAULT_STACK`] run on a stack of their own whatever RSP holds. The double
//! fault needs that: it comes when the stack has run out. Other kernels give stacks to NMI and machine check, too, which
//! may come between the first instruction of a system call and its stack switch. Here all code is in ring 0 and RSP
//! always points to a stack.
//!
//! As nothing changes it and its descriptor wants its address in four pieces, it lies at an address that is known
//! before linking, behind the exceptions' entries (`guest-kernel/link.ld`).

use shared_abi::{Gva, layout};

use crate::exceptions::entry;

/// Where the linker puts it.
pub const ADDRESS: u64 = entry::ADDRESS + entry::SIZE;
/// Its size in bytes.
pub const SIZE: usize = size_of::<Tss>();

/// The place in the table of the one stack: what a gate says to run on it.
pub const FAULT_STACK: u8 = 1;

/// A 64-bit TSS (Intel SDM vol. 3A, figure 8-11).
#[repr(C, packed(4))]
#[derive(Debug)]
pub struct Tss {
    reserved_0: u32,
    /// The stack of each ring, for those who leave a less privileged one.
    ring_stacks: [u64; 3],
    reserved_1: u64,
    /// The interrupt stack table, whose entries count from 1.
    interrupt_stacks: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    /// Where the I/O permission bitmap starts: behind the segment's end, so there is none.
    io_map: u16,
}

/// The first CPU's TSS. The others' are on the heap (`guest-kernel/src/smp/start.rs`).
#[cfg_attr(target_os = "none", unsafe(export_name = "exception_tss"), unsafe(link_section = ".rodata.tss"))]
pub static TSS: Tss = Tss::new();

impl Tss {
    const fn new() -> Self {
        Self::with_fault_stack(Gva(layout::FAULT_STACK_END.0))
    }

    /// A TSS whose stack for double faults ends there.
    pub(crate) const fn with_fault_stack(end: Gva) -> Self {
        let mut interrupt_stacks = [0; 7];
        interrupt_stacks[FAULT_STACK as usize - 1] = end.0;
        Self {
            reserved_0: 0,
            ring_stacks: [0; 3],
            reserved_1: 0,
            interrupt_stacks,
            reserved_2: 0,
            reserved_3: 0,
            io_map: size_of::<Self>() as u16,
        }
    }
}

const _: () = assert!(ADDRESS.is_multiple_of(8));

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn stacks_lie_where_the_manual_draws_them() {
        assert_eq!((offset_of!(Tss, ring_stacks), offset_of!(Tss, interrupt_stacks)), (4, 36));
        assert_eq!((offset_of!(Tss, io_map), SIZE), (102, 104));
        assert_eq!({ Tss::new().interrupt_stacks }, [layout::FAULT_STACK_END.0, 0, 0, 0, 0, 0, 0]);
    }
}
