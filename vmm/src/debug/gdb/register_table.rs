//! The table of registers: which of KVM's fields stands at which position of `target.xml`.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// Where a register is kept.
#[derive(Clone, Copy)]
pub(super) enum Place {
    General(fn(&mut kvm_regs) -> &mut u64),
    /// gdb's `eflags`: the lower half of RFLAGS.
    Flags,
    Selector(fn(&mut kvm_sregs) -> &mut kvm_segment),
    /// ST0 to ST7.
    Stack(usize),
    /// One of the x87's control registers, in the order of the XML.
    Control(ControlRegister),
    Xmm(usize),
    Mxcsr,
    Special(fn(&mut kvm_sregs) -> &mut u64),
}

/// The x87's control registers. The last instruction and its operand are given in halves, for 32-bit selectors and
/// offsets, as gdb knows them.
#[derive(Clone, Copy)]
pub(super) enum ControlRegister {
    Control,
    Status,
    Tags,
    InstructionUpper,
    InstructionLower,
    OperandUpper,
    OperandLower,
    Opcode,
}

/// The registers of `target.xml`, in its order.
pub(super) const PLACES: [Place; 65] = {
    use ControlRegister as X87;
    use Place::{Control, Flags, General, Mxcsr, Selector, Special, Stack, Xmm};
    [
        General(|r| &mut r.rax),
        General(|r| &mut r.rbx),
        General(|r| &mut r.rcx),
        General(|r| &mut r.rdx),
        General(|r| &mut r.rsi),
        General(|r| &mut r.rdi),
        General(|r| &mut r.rbp),
        General(|r| &mut r.rsp),
        General(|r| &mut r.r8),
        General(|r| &mut r.r9),
        General(|r| &mut r.r10),
        General(|r| &mut r.r11),
        General(|r| &mut r.r12),
        General(|r| &mut r.r13),
        General(|r| &mut r.r14),
        General(|r| &mut r.r15),
        General(|r| &mut r.rip),
        Flags,
        Selector(|s| &mut s.cs),
        Selector(|s| &mut s.ss),
        Selector(|s| &mut s.ds),
        Selector(|s| &mut s.es),
        Selector(|s| &mut s.fs),
        Selector(|s| &mut s.gs),
        Stack(0),
        Stack(1),
        Stack(2),
        Stack(3),
        Stack(4),
        Stack(5),
        Stack(6),
        Stack(7),
        Control(X87::Control),
        Control(X87::Status),
        Control(X87::Tags),
        Control(X87::InstructionUpper),
        Control(X87::InstructionLower),
        Control(X87::OperandUpper),
        Control(X87::OperandLower),
        Control(X87::Opcode),
        Xmm(0),
        Xmm(1),
        Xmm(2),
        Xmm(3),
        Xmm(4),
        Xmm(5),
        Xmm(6),
        Xmm(7),
        Xmm(8),
        Xmm(9),
        Xmm(10),
        Xmm(11),
        Xmm(12),
        Xmm(13),
        Xmm(14),
        Xmm(15),
        Mxcsr,
        Special(|s| &mut s.fs.base),
        Special(|s| &mut s.gs.base),
        Special(|s| &mut s.cr0),
        Special(|s| &mut s.cr2),
        Special(|s| &mut s.cr3),
        Special(|s| &mut s.cr4),
        Special(|s| &mut s.cr8),
        Special(|s| &mut s.efer),
    ]
};

impl Place {
    /// Size in bytes, as the XML has it.
    pub(super) fn size(self) -> usize {
        match self {
            Self::General(_) | Self::Special(_) => 8,
            Self::Flags | Self::Selector(_) | Self::Control(_) | Self::Mxcsr => 4,
            Self::Stack(_) => 10,
            Self::Xmm(_) => 16,
        }
    }
}
