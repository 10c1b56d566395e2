//! The doors out of ring 3: what arrives when a program calls, and how it is known.
//!
//! By the manual there are three: `syscall`, which leads where the register LSTAR says; `int 0x80`, through a gate that
//! ring 3 may use; and everything a program cannot or may not do, which is an exception. A call is known by its entry.
//!
//! That is so where guests run on the CPU. There is a KVM that lets ring 3 run on the CPU and *interprets* ring 0 (it
//! needs neither VMX nor SVM). Its `syscall` does half of the work: RCX, R11, RFLAGS and RIP change, CS does not. So
//! the CPU is at LSTAR and still in ring 3, where it may not be. Its `int n` is unknown:
//!
//! | the program does | on the CPU arrives | there arrives |
//! |---|---|---|
//! | `syscall` | `syscall_entry`, RIP in RCX | #PF, a fetch by ring 3 at RIP = CR2 = LSTAR; RIP in RCX, RFLAGS in R11 |
//! | `int 0x80` | vector 0x80, RIP behind it | #UD, RIP at the bytes `cd 80` |
//! | `int 0x21` | #GP, error code 0x10a | #UD, RIP at the bytes `cd 21` |
//! | `jmp` to LSTAR | #PF at LSTAR | the same, but no `syscall` stands before RCX |
//!
//! Nothing here asks which KVM it is. What arrives at the doors of the right column can be told from all else, and on a
//! CPU it never does; so both columns are understood everywhere. How a call came also says how to return: `sysretq` for a
//! program that came by `syscall_entry`, `iretq` for all others (that KVM has no `sysretq` in ring 0).

use shared_abi::exception::VECTORS;
use user_library::abi;

use super::enter::SYSCALL;
use crate::cpu::vectors;
use crate::exceptions::{ExceptionFrame, Vector};
use crate::memory::USER_END;

/// Why a program has stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It asks for something; its RIP is behind the instruction that does.
    Call,
    /// It did what it cannot do; the registers say what.
    Fault,
    /// An interrupt came, and was handled; the program knows nothing of it.
    Interrupt,
}

/// Whether a vector is one of interrupts, which nothing in ring 3 can cause.
pub(super) const fn is_interrupt(vector: u64) -> bool {
    vector >= VECTORS as u64 && vector < vectors::COUNT as u64 && vector != abi::INT as u64
}

const _: () = assert!(abi::INT == vectors::SYSTEM_CALL && SYSCALL >= vectors::COUNT as u64);

/// What ring 3 was told of a fetch that it may not do: present, user, instruction fetch (Intel SDM vol. 3A, 4.7).
const FORBIDDEN_FETCH: u64 = 1 << 0 | 1 << 2 | 1 << 4;

/// Finds out what has arrived, and makes the registers those of the left column. `code` reads two bytes of the program.
pub(super) fn arrival(
    registers: &mut ExceptionFrame,
    lstar: u64,
    code: impl Fn(u64) -> Option<[u8; 2]>,
) -> Arrival {
    let arrival = match registers.vector {
        SYSCALL => Arrival::Call,
        vector if vector == u64::from(abi::INT) => Arrival::Call,
        vector if is_interrupt(vector) => Arrival::Interrupt,
        vector if vector == Vector::PageFault as u64 && is_syscall(registers, lstar, &code) => {
            registers.rip = registers.rcx;
            registers.rflags = registers.r11;
            Arrival::Call
        }
        vector if vector == Vector::InvalidOpcode as u64 => match code(registers.rip) {
            Some([INT, abi::INT]) => {
                registers.rip += 2;
                Arrival::Call
            }
            Some([INT, number]) => {
                registers.vector = Vector::GeneralProtection as u64;
                registers.error_code = of_gate(number);
                Arrival::Fault
            }
            _ => Arrival::Fault,
        },
        _ => Arrival::Fault,
    };
    if arrival != Arrival::Fault && registers.rip >= USER_END {
        // The instruction before was the last one there is: the next one cannot be fetched.
        registers.vector = Vector::GeneralProtection as u64;
        registers.error_code = 0;
        return Arrival::Fault;
    }
    arrival
}

/// The first byte of `int n`.
const INT: u8 = 0xCD;

/// The error code of an `int n` whose gate ring 3 may not use: the gate, and "in the IDT" (Intel SDM vol. 3A, 7.13).
const fn of_gate(number: u8) -> u64 {
    (number as u64) << 3 | 1 << 1
}

fn is_syscall(registers: &ExceptionFrame, lstar: u64, code: &impl Fn(u64) -> Option<[u8; 2]>) -> bool {
    const SYSCALL: [u8; 2] = [0x0F, 0x05];
    registers.rip == lstar
        && registers.cr2 == lstar
        && registers.error_code == FORBIDDEN_FETCH
        && registers.rcx.checked_sub(2).and_then(code) == Some(SYSCALL)
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use shared_abi::define::Shared;

    use super::*;

    const LSTAR: u64 = 0x10_4000;
    const RIP: u64 = 0x80_0010_0000;

    fn registers(vector: u64) -> ExceptionFrame {
        ExceptionFrame { vector, rip: RIP, ..ExceptionFrame::read(&mut || 0) }
    }

    /// What arrives from a program whose code is `code`, from `RIP` on.
    fn arrive(registers: &mut ExceptionFrame, code: &[u8]) -> Arrival {
        arrival(registers, LSTAR, |gva| {
            let start = usize::try_from(gva.checked_sub(RIP)?).ok()?;
            code.get(start..)?.first_chunk().copied()
        })
    }

    #[test]
    fn a_call_through_either_door_is_one() {
        for vector in [SYSCALL, 0x80] {
            let mut registers = registers(vector);
            assert_eq!(arrive(&mut registers, &[]), Arrival::Call);
            assert_eq!((registers.vector, registers.rip), (vector, RIP));
        }
    }

    /// What the KVM that interprets ring 0 makes of `syscall`.
    fn half_a_syscall() -> ExceptionFrame {
        let (rip, cr2, error_code) = (LSTAR, LSTAR, 0x15);
        ExceptionFrame { rip, cr2, error_code, rcx: RIP + 2, r11: 0x246, ..registers(14) }
    }

    #[test]
    fn half_a_syscall_is_completed() {
        let mut registers = half_a_syscall();
        assert_eq!(arrive(&mut registers, &[0x0F, 0x05]), Arrival::Call);
        assert_eq!((registers.rip, registers.rflags), (RIP + 2, 0x246));
        assert_ne!(registers.vector, SYSCALL, "it returns by iretq");
    }

    #[test]
    fn a_jump_to_the_kernel_is_no_call() {
        let jumps = [
            ExceptionFrame { rcx: 0, ..half_a_syscall() },
            ExceptionFrame { rip: LSTAR + 1, cr2: LSTAR + 1, ..half_a_syscall() },
            ExceptionFrame { error_code: 0x5, ..half_a_syscall() },
        ];
        for mut registers in jumps {
            assert_eq!(arrive(&mut registers, &[0x0F, 0x05]), Arrival::Fault);
        }
        assert_eq!(arrive(&mut half_a_syscall(), &[0xFF, 0xE0]), Arrival::Fault);
    }

    #[test]
    fn an_unknown_int_is_decoded() {
        let mut call = registers(6);
        assert_eq!(arrive(&mut call, &[0xCD, 0x80]), Arrival::Call);
        assert_eq!(call.rip, RIP + 2);

        let mut other = registers(6);
        assert_eq!(arrive(&mut other, &[0xCD, 0x21]), Arrival::Fault);
        assert_eq!((other.vector, other.error_code, other.rip), (13, 0x10A, RIP));

        let mut none = registers(6);
        assert_eq!(arrive(&mut none, &[0x0F, 0x0B]), Arrival::Fault);
        assert_eq!(none.vector, 6);
    }

    #[test]
    fn a_call_from_the_last_address_does_not_return() {
        let mut registers = ExceptionFrame { rip: USER_END, ..registers(SYSCALL) };
        assert_eq!(arrive(&mut registers, &[]), Arrival::Fault);
        assert_eq!(registers.vector, 13);
    }
}
