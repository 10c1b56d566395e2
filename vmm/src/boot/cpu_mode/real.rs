//! Real mode: the 8086 of 1978, and what every x86 CPU still wakes up in.
//!
//! Addresses have 20 bits, of two 16-bit parts: `segment · 16 + offset`. Any program can read and write everything, and
//! interrupts find their handlers in a table of 256 such pairs at address 0. Intel SDM vol. 3B, 21.1.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;
use shared_abi::{Gpa, layout};
use x86_64::registers::control::Cr0Flags;

use super::{RESERVED_RFLAGS, RegisterOrigins, StartMode, segment};
use crate::error::Result;

/// 16-bit code.
///
/// | register | value | why |
/// |---|---|---|
/// | `CR0` | `ET` | no protection, no paging |
/// | `CS` | the 64 KiB that the entry lies in | `0x0000` up to 0xFFFF, `0x1000` from there, … |
/// | `IP` | the entry's offset there | so an image at 0x7C00 starts at `0000:7C00`, as boot sectors do |
/// | `DS` `ES` `FS` `GS` | 0 | |
/// | `SS:SP` | `7000:FFF0` | just below 0x8_0000, where all our stacks end |
/// | `IDTR` | base 0, limit 0x3FF | the interrupt vector table: 256 far pointers of 4 bytes |
/// | `RFLAGS` | bit 1, which is always 1 | interrupts are off |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealMode {
    /// Where execution starts, below 1 MiB.
    pub entry: Gpa,
}

/// 256 far pointers (Intel SDM vol. 3B, 21.1.4).
const VECTOR_TABLE: kvm_dtable = kvm_dtable { base: 0, limit: 0x3FF, padding: [0; 3] };

/// The stack's segment, of which the last byte is the last of the stack.
const STACK_SELECTOR: u16 = ((layout::STACK_END.0 - 0x1_0000) >> 4) as u16;
const STACK_TOP: u64 = 0xFFF0;

impl RealMode {
    /// Sets the vCPU's registers and checks that KVM kept them.
    ///
    /// # Errors
    /// As [`CpuMode::set`](super::CpuMode::set).
    pub fn set(&self, vcpu: &VcpuFd) -> Result<RegisterOrigins> {
        super::set(vcpu, StartMode::Real, |reset| self.sregs(reset), &self.regs())
    }

    fn sregs(&self, reset: kvm_sregs) -> kvm_sregs {
        let data = segment::real(0, false);
        let selector = (self.entry.0 & 0xF_0000) >> 4;
        kvm_sregs {
            cs: segment::real(selector as u16, true),
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: segment::real(STACK_SELECTOR, false),
            idt: VECTOR_TABLE,
            cr0: Cr0Flags::EXTENSION_TYPE.bits(),
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            ..reset
        }
    }

    fn regs(&self) -> kvm_regs {
        kvm_regs {
            rip: self.entry.0 & 0xFFFF,
            rsp: STACK_TOP,
            rflags: RESERVED_RFLAGS,
            ..kvm_regs::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_becomes_a_segment_and_an_offset() {
        for (entry, cs, ip) in [
            (0, 0, 0),
            (0x7C00, 0, 0x7C00),
            (0xFFFF, 0, 0xFFFF),
            (0x1_0000, 0x1000, 0),
            (0xF_FFF0, 0xF000, 0xFFF0),
        ] {
            let mode = RealMode { entry: Gpa(entry) };
            let sregs = mode.sregs(kvm_sregs::default());
            assert_eq!((sregs.cs.selector, mode.regs().rip), (cs, ip), "{entry:#x}");
            assert_eq!(sregs.cs.base + mode.regs().rip, entry);
        }
    }

    #[test]
    fn the_stack_ends_where_all_stacks_end() {
        let sregs = RealMode { entry: Gpa(0) }.sregs(kvm_sregs::default());
        assert_eq!(sregs.ss.base + STACK_TOP + 16, layout::STACK_END.0);
    }
}
