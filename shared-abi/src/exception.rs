//! Exceptions: their vectors, and what a guest knows when one has interrupted it.
//!
//! The CPU numbers its exceptions 0 to 31 and pushes six words when it raises one; the guest's entry code adds the
//! rest of the registers. The result is an [`ExceptionFrame`], which a handler in the guest may change to continue
//! elsewhere, and which [`Hypercall::Exception`](crate::Hypercall::Exception) shows to the host when nobody handles
//! the exception.
//!
//! Guest side: `guest-kernel/src/exceptions.rs`. Host side: `vmm/src/hypercall/last_words.rs`.

use core::fmt;

use crate::define::{shared_enum, shared_struct};

/// How many vectors belong to exceptions (Intel SDM vol. 3A, 7.2).
pub const VECTORS: usize = 32;

shared_enum! {
    /// An exception that the CPU can raise (Intel SDM vol. 3A, table 7-1; the last three are AMD's: AMD APM vol. 2,
    /// 8.2). Vectors that are missing here are reserved.
    pub enum Vector {
        /// #DE: a division by zero, or a quotient that does not fit.
        DivideError = 0,
        /// #DB: a step, or a breakpoint in a debug register.
        Debug = 1,
        /// NMI: an interrupt that cannot be turned off.
        NonMaskableInterrupt = 2,
        /// #BP: `int3`.
        Breakpoint = 3,
        /// #OF: `into`, which 64-bit mode does not have.
        Overflow = 4,
        /// #BR: `bound`, which 64-bit mode does not have.
        BoundRangeExceeded = 5,
        /// #UD: an instruction that the CPU does not know, or not here; `ud2` never is one.
        InvalidOpcode = 6,
        /// #NM: floating point while it is turned off.
        DeviceNotAvailable = 7,
        /// #DF: an exception while another one was being delivered.
        DoubleFault = 8,
        /// The coprocessor of an 80386.
        CoprocessorSegmentOverrun = 9,
        /// #TS: a task state segment that is none.
        InvalidTss = 10,
        /// #NP: a segment or gate that is not present.
        SegmentNotPresent = 11,
        /// #SS: a stack address that is not canonical, or a bad stack segment.
        StackSegmentFault = 12,
        /// #GP: whatever the CPU forbids and has no vector of its own for.
        GeneralProtection = 13,
        /// #PF: an access that the page tables do not allow. CR2 holds its address.
        PageFault = 14,
        /// #MF: an x87 instruction went wrong.
        X87FloatingPoint = 16,
        /// #AC: an address that is not aligned, where that is asked for.
        AlignmentCheck = 17,
        /// #MC: the machine is broken.
        MachineCheck = 18,
        /// #XM: an SSE instruction went wrong.
        SimdFloatingPoint = 19,
        /// #VE: an EPT violation that the hypervisor leaves to the guest.
        Virtualization = 20,
        /// #CP: a return to another place than the call came from.
        ControlProtection = 21,
        /// #HV: an event from the hypervisor of a guest with encrypted state.
        HypervisorInjection = 28,
        /// #VC: an exit of a guest with encrypted state.
        VmmCommunication = 29,
        /// #SX: a security event.
        Security = 30,
    }
}

impl Vector {
    /// What manuals call it: `#PF`.
    #[must_use]
    pub const fn mnemonic(self) -> &'static str {
        match self {
            Self::DivideError => "#DE",
            Self::Debug => "#DB",
            Self::NonMaskableInterrupt => "NMI",
            Self::Breakpoint => "#BP",
            Self::Overflow => "#OF",
            Self::BoundRangeExceeded => "#BR",
            Self::InvalidOpcode => "#UD",
            Self::DeviceNotAvailable => "#NM",
            Self::DoubleFault => "#DF",
            Self::CoprocessorSegmentOverrun => "vector 9",
            Self::InvalidTss => "#TS",
            Self::SegmentNotPresent => "#NP",
            Self::StackSegmentFault => "#SS",
            Self::GeneralProtection => "#GP",
            Self::PageFault => "#PF",
            Self::X87FloatingPoint => "#MF",
            Self::AlignmentCheck => "#AC",
            Self::MachineCheck => "#MC",
            Self::SimdFloatingPoint => "#XM",
            Self::Virtualization => "#VE",
            Self::ControlProtection => "#CP",
            Self::HypervisorInjection => "#HV",
            Self::VmmCommunication => "#VC",
            Self::Security => "#SX",
        }
    }

    /// A few words for people: `page fault`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DivideError => "divide error",
            Self::Debug => "debug exception",
            Self::NonMaskableInterrupt => "non-maskable interrupt",
            Self::Breakpoint => "breakpoint",
            Self::Overflow => "overflow",
            Self::BoundRangeExceeded => "bound range exceeded",
            Self::InvalidOpcode => "invalid opcode",
            Self::DeviceNotAvailable => "device not available",
            Self::DoubleFault => "double fault",
            Self::CoprocessorSegmentOverrun => "coprocessor segment overrun",
            Self::InvalidTss => "invalid TSS",
            Self::SegmentNotPresent => "segment not present",
            Self::StackSegmentFault => "stack-segment fault",
            Self::GeneralProtection => "general protection",
            Self::PageFault => "page fault",
            Self::X87FloatingPoint => "x87 floating-point error",
            Self::AlignmentCheck => "alignment check",
            Self::MachineCheck => "machine check",
            Self::SimdFloatingPoint => "SIMD floating-point error",
            Self::Virtualization => "virtualization exception",
            Self::ControlProtection => "control protection",
            Self::HypervisorInjection => "hypervisor injection exception",
            Self::VmmCommunication => "VMM communication exception",
            Self::Security => "security exception",
        }
    }

    /// Whether the CPU pushes an error code (Intel SDM vol. 3A, table 7-1; AMD APM vol. 2, table 8-1).
    #[must_use]
    pub const fn has_error_code(self) -> bool {
        matches!(
            self,
            Self::DoubleFault
                | Self::InvalidTss
                | Self::SegmentNotPresent
                | Self::StackSegmentFault
                | Self::GeneralProtection
                | Self::PageFault
                | Self::AlignmentCheck
                | Self::ControlProtection
                | Self::VmmCommunication
                | Self::Security
        )
    }
}

impl fmt::Display for Vector {
    /// `#PF (page fault)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.mnemonic(), self.name())
    }
}

shared_struct! {
    /// The registers of what was interrupted, in the order in which they lie on the handler's stack: the CPU pushes
    /// the last field first.
    ///
    /// Shown to the host, it is a claim: a guest may say anything about itself.
    pub struct ExceptionFrame {
        // Pushed by the guest's common entry code.
        /// The address of the last page fault, this one or an older.
        pub cr2: u64,
        /// RAX.
        pub rax: u64,
        /// RBX.
        pub rbx: u64,
        /// RCX.
        pub rcx: u64,
        /// RDX.
        pub rdx: u64,
        /// RSI.
        pub rsi: u64,
        /// RDI.
        pub rdi: u64,
        /// RBP: the chain of frames of what was interrupted.
        pub rbp: u64,
        /// R8.
        pub r8: u64,
        /// R9.
        pub r9: u64,
        /// R10.
        pub r10: u64,
        /// R11.
        pub r11: u64,
        /// R12.
        pub r12: u64,
        /// R13.
        pub r13: u64,
        /// R14.
        pub r14: u64,
        /// R15.
        pub r15: u64,
        // Pushed by the entry stub of the vector.
        /// Which exception: the number of a [`Vector`].
        pub vector: u64,
        // Pushed by the CPU, where the vector has one; else the stub pushes 0.
        /// The error code.
        pub error_code: u64,
        // Pushed by the CPU.
        /// The instruction that faults, or the one behind a trap.
        pub rip: u64,
        /// CS.
        pub cs: u64,
        /// RFLAGS.
        pub rflags: u64,
        /// RSP.
        pub rsp: u64,
        /// SS.
        pub ss: u64,
    }
}

impl ExceptionFrame {
    /// The exception; `None` for a number that no CPU has.
    #[must_use]
    pub const fn vector(&self) -> Option<Vector> {
        Vector::from_number(self.vector)
    }

    /// The address whose access faulted, for a page fault.
    #[must_use]
    pub const fn fault_address(&self) -> Option<crate::Gva> {
        match self.vector() {
            Some(Vector::PageFault) => Some(crate::Gva(self.cr2)),
            _ => None,
        }
    }
}

impl fmt::Display for ExceptionFrame {
    /// Which exception, in a few words: `#PF (page fault) at 0x8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.vector(), self.fault_address()) {
            (Some(vector), Some(address)) => write!(f, "{vector} at {address}"),
            (Some(vector), None) => write!(f, "{vector}"),
            (None, _) => write!(f, "an exception with the reserved vector {}", self.vector),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn the_vectors_with_error_codes_are_those_of_the_manuals() {
        let with = Vector::ALL.iter().filter(|vector| vector.has_error_code()).map(|vector| *vector as u64);
        assert!(with.eq([8, 10, 11, 12, 13, 14, 17, 21, 29, 30]));
        assert!(Vector::ALL.iter().all(|vector| (*vector as usize) < VECTORS));
    }

    #[test]
    fn what_the_cpu_pushes_ends_the_frame() {
        // Intel SDM vol. 3A, figure 7-9: error code, RIP, CS, RFLAGS, RSP, SS, upwards.
        let words = size_of::<ExceptionFrame>() / 8;
        let pushed = [
            offset_of!(ExceptionFrame, error_code),
            offset_of!(ExceptionFrame, rip),
            offset_of!(ExceptionFrame, cs),
            offset_of!(ExceptionFrame, rflags),
            offset_of!(ExceptionFrame, rsp),
            offset_of!(ExceptionFrame, ss),
        ];
        assert_eq!(pushed, core::array::from_fn(|index| (words - 6 + index) * 8));
    }
}
