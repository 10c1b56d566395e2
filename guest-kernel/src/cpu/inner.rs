//! The guest in the guest, and why it comes out: the same for both makers' ways to run one, [`svm`](super::svm) and
//! [`vmx`](super::vmx).
//!
//! The inner guest prints a line through port 0xE9, byte by byte, and calls its hypervisor with 42 in RAX. It believes to be
//! alone on a machine. Its port is not the machine's: each `out` ends in the loop of the kernel that runs it, which prints
//! in its place.

use core::cell::UnsafeCell;

/// Why the inner guest has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It wrote to a port.
    PioOut {
        /// The port.
        port: u16,
        /// What it wrote; of the size that it had.
        value: u32,
    },
    /// It called its hypervisor: `vmmcall`, or `vmcall`.
    Call,
    /// It halted.
    Halt,
    /// It could not be entered at all; the number is the CPU's reason.
    Refused(u64),
    /// Anything else, as the CPU tells it.
    Other {
        /// EXITCODE, or the exit reason.
        code: u64,
        /// EXITINFO1, or the exit qualification.
        info: u64,
    },
}

/// General registers that entering a guest does not switch, in the order in which `run.rs` of both knows them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
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
    /// RBP.
    pub rbp: u64,
    /// R8 to R15.
    pub r8_to_r15: [u64; 8],
    /// RAX: of VMX alone; SVM's VMCB has it.
    pub rax: u64,
}

/// A page of memory, or several, that the CPU is told of by its physical address. The kernel is mapped to itself.
#[repr(C, align(4096))]
pub(super) struct Pages<const COUNT: usize>(UnsafeCell<[[u8; 4096]; COUNT]>);

// SAFETY: The pages are reached through their address alone, by the one `Hypervisor` there is and by the CPU.
unsafe impl<const COUNT: usize> Sync for Pages<COUNT> {}

impl<const COUNT: usize> Pages<COUNT> {
    pub(super) const fn filled(byte: u8) -> Self {
        Self(UnsafeCell::new([[byte; 4096]; COUNT]))
    }

    /// Writes the first word, which the CPU wants to find its revision in.
    ///
    /// # Safety
    /// The page is nobody else's, and the CPU has not been told of it yet.
    pub(super) unsafe fn write_word(&'static self, word: u32) {
        // SAFETY: The caller's promise; the page is aligned.
        unsafe { self.0.get().cast::<u32>().write(word) };
    }

    pub(super) fn gpa(&'static self) -> u64 {
        self.0.get() as u64
    }
}

/// The instruction that calls a hypervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Maker {
    /// AMD: `vmmcall`.
    Amd,
    /// Intel: `vmcall`.
    Intel,
}

/// Where the inner guest starts.
#[cfg(target_os = "none")]
pub(super) fn entry(maker: Maker) -> u64 {
    match maker {
        Maker::Amd => for_amd as *const () as u64,
        Maker::Intel => for_intel as *const () as u64,
    }
}

/// Where the inner guest starts; on the host there is no machine.
#[cfg(not(target_os = "none"))]
pub(super) fn entry(_maker: Maker) -> u64 {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// The whole guest; `$call` is its last instruction but one.
#[cfg(target_os = "none")]
macro_rules! guest {
    ($name:ident, $call:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name() -> ! {
            core::arch::naked_asm!(
                "lea rsi, [rip + 4f]",
                "2: lodsb",
                "test al, al",
                "jz 3f",
                "out {console}, al",
                "jmp 2b",
                "3: mov eax, 42",
                $call,
                "hlt",
                r#"4: .asciz "hello from the guest in the guest\n""#,
                console = const shared_abi::ports::DEBUG_CONSOLE,
            )
        }
    };
}

#[cfg(target_os = "none")]
guest!(for_amd, "vmmcall");
#[cfg(target_os = "none")]
guest!(for_intel, "vmcall");
