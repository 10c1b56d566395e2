//! The TSS: stacks for exceptions that may find none.
//!
//! Switching tasks is what its name is left of. In 64-bit mode the CPU reads stack pointers from it, and never writes
//! it. A gate that asks for a place in its table runs on that stack, whatever RSP holds. Three exceptions need that. The
//! double fault comes when the stack has run out. NMI and machine check come at any instruction, also between the first
//! of a system call and its change of stacks, where RSP is still the user's. Each has its own, as one may interrupt
//! another; below each lies a page that is never mapped (`shared-abi/src/layout.rs`).
//!
//! As nothing changes it and its descriptor wants its address in four pieces, it lies at an address that is known
//! before linking, behind the exceptions' entries (`guest-kernel/link.ld`).

use shared_abi::exception::Vector;
use shared_abi::{Gva, layout};

use core::ptr::null;

use crate::exceptions::entry;
use crate::user::enter;

/// Where the linker puts it.
pub const ADDRESS: u64 = entry::ADDRESS + entry::SIZE;
/// Its size in bytes.
pub const SIZE: usize = size_of::<Tss>();

/// The place in the table of the double fault's stack: what its gate says to run on it.
pub const FAULT_STACK: u8 = 1;
/// The place of the NMI's.
pub const NMI_STACK: u8 = 2;
/// The place of the machine check's.
pub const MACHINE_CHECK_STACK: u8 = 3;

/// The place of the stack that a vector's handler runs on; 0 for the stack that is interrupted.
#[must_use]
pub const fn stack_for(vector: usize) -> u8 {
    const DOUBLE_FAULT: usize = Vector::DoubleFault as usize;
    const NMI: usize = Vector::NonMaskableInterrupt as usize;
    const MACHINE_CHECK: usize = Vector::MachineCheck as usize;
    match vector {
        DOUBLE_FAULT => FAULT_STACK,
        NMI => NMI_STACK,
        MACHINE_CHECK => MACHINE_CHECK_STACK,
        _ => 0,
    }
}

/// A 64-bit TSS (Intel SDM vol. 3A, figure 8-11).
#[repr(C, packed(4))]
#[derive(Debug)]
pub struct Tss {
    reserved_0: u32,
    /// The stack of each ring, for those who leave a less privileged one.
    ring_stacks: [RingStack; 3],
    reserved_1: u64,
    /// The interrupt stack table, whose entries count from 1.
    interrupt_stacks: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    /// Where the I/O permission bitmap starts: behind the segment's end, so there is none.
    io_map: u16,
}

/// Where a stack starts that grows down; the linker knows where that is.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
struct RingStack(*const u8);

// SAFETY: An address for the CPU, which nobody follows here.
unsafe impl Sync for RingStack {}

/// The first CPU's TSS. The others' are on the heap (`guest-kernel/src/smp/start.rs`).
#[cfg_attr(target_os = "none", unsafe(export_name = "exception_tss"), unsafe(link_section = ".rodata.tss"))]
pub static TSS: Tss = Tss::new();

impl Tss {
    const fn new() -> Self {
        Self::with_stacks([
            Gva(layout::FAULT_STACK_END.0),
            Gva(layout::NMI_STACK_END.0),
            Gva(layout::MACHINE_CHECK_STACK_END.0),
        ])
    }

    /// A TSS whose stacks for double faults, NMIs and machine checks end there.
    pub(crate) const fn with_stacks(ends: [Gva; 3]) -> Self {
        let mut interrupt_stacks = [0; 7];
        interrupt_stacks[FAULT_STACK as usize - 1] = ends[0].0;
        interrupt_stacks[NMI_STACK as usize - 1] = ends[1].0;
        interrupt_stacks[MACHINE_CHECK_STACK as usize - 1] = ends[2].0;
        Self {
            reserved_0: 0,
            ring_stacks: [RingStack(enter::TRAP_STACK_END), RingStack(null()), RingStack(null())],
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
        assert_eq!({ Tss::new().interrupt_stacks }, [0x3_F000, 0x3_A000, 0x3_5000, 0, 0, 0, 0]);
    }
}
