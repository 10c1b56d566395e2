//! As much of CP/M as a program needs to print and to end.
//!
//! A program is loaded at 0x100 and called. It calls 5, with the number of a function in C, and returns to 0 when it is
//! done. In CP/M there is a jump to the system at both places; here [`run`] looks whether the CPU has come there.

use super::{Bus, Cpu};

/// Where programs start.
pub const START: u16 = 0x100;
/// Where the system is called.
const BDOS: u16 = 5;
/// Where programs end.
const WARM_BOOT: u16 = 0;
/// The stack of a program that makes none: below the system, which begins there.
const STACK: u16 = 0xF000;

/// Function 2 of the system: prints the character in E.
const PRINT_CHARACTER: u8 = 2;
/// Function 9: prints the text at DE, up to a `$`.
const PRINT_TEXT: u8 = 9;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It returned to the system.
    Done,
    /// It halted: no CP/M program does.
    Halted,
    /// It called a function that is not here.
    UnknownFunction(u8),
    /// It executed as many instructions as it may.
    OutOfTime,
}

/// A computer: memory, and what prints.
#[derive(Debug)]
pub struct Computer<'a, P> {
    /// All 64 KiB.
    pub memory: &'a mut [u8; 0x1_0000],
    /// Prints a byte.
    pub print: P,
}

impl<P: FnMut(u8)> Bus for Computer<'_, P> {
    fn read(&self, address: u16) -> u8 {
        self.memory.get(usize::from(address)).copied().unwrap_or_default()
    }

    fn write(&mut self, address: u16, byte: u8) {
        if let Some(place) = self.memory.get_mut(usize::from(address)) {
            *place = byte;
        }
    }

    fn input(&mut self, _port: u8) -> u8 {
        0xFF
    }

    fn output(&mut self, _port: u8, _byte: u8) {}
}

/// Runs `program`, for `limit` instructions at most. What does not fit memory is left out.
pub fn run<P: FnMut(u8)>(program: &[u8], computer: &mut Computer<'_, P>, limit: u64) -> End {
    for (byte, place) in program.iter().zip(computer.memory.iter_mut().skip(START.into())) {
        *place = *byte;
    }
    // The word on its stack leads back to the system.
    let mut cpu = Cpu { pc: START, sp: STACK, ..Cpu::default() };
    for _ in 0..limit {
        match cpu.pc {
            WARM_BOOT => return End::Done,
            BDOS => {
                let [_, function] = cpu.pair(0).to_be_bytes();
                if !call(function, cpu.pair(1), computer) {
                    return End::UnknownFunction(function);
                }
                cpu.pc = cpu.pop(computer);
            }
            _ => cpu.step(computer),
        }
        if cpu.is_halted {
            return End::Halted;
        }
    }
    End::OutOfTime
}

/// Does a function of the system; false if it is not here.
fn call<P: FnMut(u8)>(function: u8, de: u16, computer: &mut Computer<'_, P>) -> bool {
    match function {
        PRINT_CHARACTER => (computer.print)(de as u8),
        PRINT_TEXT => {
            // A text without end ends where it began.
            for offset in 0..=u16::MAX {
                match computer.read(de.wrapping_add(offset)) {
                    b'$' => break,
                    byte => (computer.print)(byte),
                }
            }
        }
        _ => return false,
    }
    true
}
