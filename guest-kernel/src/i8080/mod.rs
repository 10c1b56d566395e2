//! The 8080 of 1974, in software: the CPU that the 8086 was made to replace, and whose programs CP/M ran.
//!
//! No CPU of Intel's or AMD's executes 8080 code. NEC's V20 and V30 of 1984 did: beside the 8086 they had an "8080
//! emulation mode", entered by an instruction of its own (`BRKEM`) and left by another (`RETEM`). So this mode of the tour
//! is a program: it fetches a byte, looks what it means, does it, and goes on, as the silicon does.
//!
//! An opcode is three fields of two, three and three bits, and whole columns of the table follow one rule:
//!
//! ```text
//! 00 ddd 1xx   INR, DCR, MVI d              ddd, sss   B C D E H L M A    (M: the byte at HL)
//! 00 rp0 001   LXI rp       00 rp1 001 DAD  rp         BC DE HL SP        (PUSH, POP: PSW instead of SP)
//! 01 ddd sss   MOV d, s     01 110 110 HLT  ccc        NZ Z NC C PO PE P M
//! 10 ooo sss   ooo A, s                     ooo        ADD ADC SUB SBB ANA XRA ORA CMP
//! 11 ccc 000   Rccc         11 ccc 010 Jccc 11 ccc 100 Cccc   11 ooo 110 ooo A, byte   11 nnn 111 RST n
//! ```
//!
//! Twelve opcodes have no meaning in the manual and do what others do; so here. Timing is left out, and so are interrupts:
//! nothing here sends any. Intel 8080 Microcomputer Systems User's Manual, chapter 4.
//!
//! Pure: memory and ports are behind [`Bus`]. [`cpm`] is enough of CP/M for a program to print.

mod alu;
pub mod cpm;
pub mod programs;
#[cfg(all(test, not(target_os = "none")))]
mod tests;

pub use alu::Flags;

/// What the CPU's pins lead to.
pub trait Bus {
    /// The byte of memory at `address`.
    fn read(&self, address: u16) -> u8;
    /// Changes it.
    fn write(&mut self, address: u16, byte: u8);
    /// What the device at `port` answers.
    fn input(&mut self, port: u8) -> u8;
    /// Gives the device at `port` a byte.
    fn output(&mut self, port: u8, byte: u8);
}

/// An 8080.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// B, C, D, E, H, L, nothing, A: by the numbers that opcodes have for them.
    registers: [u8; 8],
    /// The flags.
    pub flags: Flags,
    /// The stack pointer.
    pub sp: u16,
    /// The program counter.
    pub pc: u16,
    /// Whether HLT was executed.
    pub is_halted: bool,
    /// Whether EI was the last of EI and DI.
    pub has_interrupts: bool,
}

/// The numbers of registers in opcodes.
const H: u8 = 4;
const L: u8 = 5;
const MEMORY: u8 = 6;
const A: u8 = 7;
/// And of pairs.
const HL: u8 = 2;
const SP_OR_PSW: u8 = 3;

impl Cpu {
    /// The register A.
    #[must_use]
    pub fn a(&self) -> u8 {
        self.register(A)
    }

    /// The pair BC, DE or HL, as 0, 1, 2; SP as 3.
    #[must_use]
    pub fn pair(&self, number: u8) -> u16 {
        if number == SP_OR_PSW {
            return self.sp;
        }
        u16::from_be_bytes([self.register(number * 2), self.register(number * 2 + 1)])
    }

    /// Executes the instruction at PC.
    pub fn step(&mut self, bus: &mut impl Bus) {
        let opcode = self.fetch(bus);
        let (middle, low) = (opcode >> 3 & 7, opcode & 7);
        match opcode >> 6 {
            0 => self.first_quarter(bus, middle, low),
            1 if opcode == 0x76 => self.is_halted = true,
            1 => {
                let byte = self.read_operand(bus, low);
                self.write_operand(bus, middle, byte);
            }
            2 => {
                let byte = self.read_operand(bus, low);
                self.calculate(middle, byte);
            }
            _ => self.last_quarter(bus, middle, low),
        }
    }

    /// The opcodes 00 to 3F: constants, counting, addresses in the instruction, rotation.
    fn first_quarter(&mut self, bus: &mut impl Bus, middle: u8, low: u8) {
        let (pair, is_odd) = (middle >> 1, middle & 1 == 1);
        match low {
            0 => {} // NOP, and seven that do the same
            1 if is_odd => self.add_to_hl(self.pair(pair)),
            1 => {
                let word = self.fetch_word(bus);
                self.set_pair(pair, word);
            }
            2 => self.load_or_store(bus, middle),
            3 => {
                let step = if is_odd { u16::MAX } else { 1 };
                self.set_pair(pair, self.pair(pair).wrapping_add(step));
            }
            4 | 5 => {
                let byte = self.read_operand(bus, middle);
                let counted = if low == 4 { self.flags.increment(byte) } else { self.flags.decrement(byte) };
                self.write_operand(bus, middle, counted);
            }
            6 => {
                let byte = self.fetch(bus);
                self.write_operand(bus, middle, byte);
            }
            _ => self.accumulator(middle),
        }
    }

    /// STAX, LDAX, SHLD, LHLD, STA, LDA.
    fn load_or_store(&mut self, bus: &mut impl Bus, middle: u8) {
        let address = if middle < 4 { self.pair(middle >> 1) } else { self.fetch_word(bus) };
        match middle {
            4 => self.write_word(bus, address, self.pair(HL)),
            5 => {
                let word = Self::read_word(bus, address);
                self.set_pair(HL, word);
            }
            0 | 2 | 6 => bus.write(address, self.a()),
            _ => self.set_register(A, bus.read(address)),
        }
    }

    /// RLC, RRC, RAL, RAR, DAA, CMA, STC, CMC.
    fn accumulator(&mut self, middle: u8) {
        let a = self.a();
        let (carry_in, flags) = (u8::from(self.flags.carry), &mut self.flags);
        let result = match middle {
            0 => {
                flags.carry = a & 0x80 != 0;
                a.rotate_left(1)
            }
            1 => {
                flags.carry = a & 1 != 0;
                a.rotate_right(1)
            }
            2 => {
                flags.carry = a & 0x80 != 0;
                a << 1 | carry_in
            }
            3 => {
                flags.carry = a & 1 != 0;
                a >> 1 | carry_in << 7
            }
            4 => flags.adjust_decimal(a),
            5 => !a,
            6 => {
                flags.carry = true;
                a
            }
            _ => {
                flags.carry = !flags.carry;
                a
            }
        };
        self.set_register(A, result);
    }

    /// The opcodes C0 to FF: jumps, calls, the stack, ports, and arithmetic with a byte of the instruction.
    fn last_quarter(&mut self, bus: &mut impl Bus, middle: u8, low: u8) {
        let (pair, is_odd) = (middle >> 1, middle & 1 == 1);
        match low {
            0 => self.return_if(bus, self.flags.meet(middle)),
            1 if !is_odd => {
                let word = self.pop(bus);
                self.set_pushed(pair, word);
            }
            1 => match pair {
                2 => self.pc = self.pair(HL), // PCHL
                3 => self.sp = self.pair(HL), // SPHL
                _ => self.return_if(bus, true),
            },
            2 => self.jump_if(bus, self.flags.meet(middle)),
            3 => self.ports_and_exchanges(bus, middle),
            4 => self.call_if(bus, self.flags.meet(middle)),
            5 if is_odd => self.call_if(bus, true),
            5 => self.push(bus, self.pushed(pair)),
            6 => {
                let byte = self.fetch(bus);
                self.calculate(middle, byte);
            }
            _ => {
                self.push(bus, self.pc);
                self.pc = u16::from(middle) * 8; // RST
            }
        }
    }

    fn ports_and_exchanges(&mut self, bus: &mut impl Bus, middle: u8) {
        match middle {
            2 => {
                let port = self.fetch(bus);
                bus.output(port, self.a());
            }
            3 => {
                let port = self.fetch(bus);
                let byte = bus.input(port);
                self.set_register(A, byte);
            }
            4 => {
                let (top, hl) = (Self::read_word(bus, self.sp), self.pair(HL));
                self.write_word(bus, self.sp, hl);
                self.set_pair(HL, top);
            }
            5 => {
                let (de, hl) = (self.pair(1), self.pair(HL));
                self.set_pair(1, hl);
                self.set_pair(HL, de);
            }
            6 => self.has_interrupts = false,
            7 => self.has_interrupts = true,
            _ => self.jump_if(bus, true),
        }
    }

    /// Does the operation `number` of the eight with A and `byte`; all but CMP keep the result.
    fn calculate(&mut self, number: u8, byte: u8) {
        const CMP: u8 = 7;
        let result = self.flags.calculate(number, self.a(), byte);
        if number != CMP {
            self.set_register(A, result);
        }
    }

    fn add_to_hl(&mut self, word: u16) {
        let (sum, carry) = self.pair(HL).overflowing_add(word);
        self.flags.carry = carry;
        self.set_pair(HL, sum);
    }

    fn jump_if(&mut self, bus: &impl Bus, is_met: bool) {
        let target = self.fetch_word(bus);
        if is_met {
            self.pc = target;
        }
    }

    fn call_if(&mut self, bus: &mut impl Bus, is_met: bool) {
        let target = self.fetch_word(bus);
        if is_met {
            self.push(bus, self.pc);
            self.pc = target;
        }
    }

    fn return_if(&mut self, bus: &impl Bus, is_met: bool) {
        if is_met {
            self.pc = self.pop(bus);
        }
    }

    fn fetch(&mut self, bus: &impl Bus) -> u8 {
        let byte = bus.read(self.pc);
        self.pc = self.pc.wrapping_add(1);
        byte
    }

    fn fetch_word(&mut self, bus: &impl Bus) -> u16 {
        u16::from_le_bytes([self.fetch(bus), self.fetch(bus)])
    }

    fn read_word(bus: &impl Bus, address: u16) -> u16 {
        u16::from_le_bytes([bus.read(address), bus.read(address.wrapping_add(1))])
    }

    fn write_word(&self, bus: &mut impl Bus, address: u16, word: u16) {
        let [low, high] = word.to_le_bytes();
        bus.write(address, low);
        bus.write(address.wrapping_add(1), high);
    }

    fn push(&mut self, bus: &mut impl Bus, word: u16) {
        self.sp = self.sp.wrapping_sub(2);
        self.write_word(bus, self.sp, word);
    }

    /// Takes a word from the stack.
    pub fn pop(&mut self, bus: &impl Bus) -> u16 {
        let word = Self::read_word(bus, self.sp);
        self.sp = self.sp.wrapping_add(2);
        word
    }

    fn register(&self, number: u8) -> u8 {
        self.registers.get(usize::from(number)).copied().unwrap_or_default()
    }

    fn set_register(&mut self, number: u8, byte: u8) {
        if let Some(register) = self.registers.get_mut(usize::from(number)) {
            *register = byte;
        }
    }

    fn read_operand(&self, bus: &impl Bus, number: u8) -> u8 {
        if number == MEMORY { bus.read(self.pair(HL)) } else { self.register(number) }
    }

    fn write_operand(&mut self, bus: &mut impl Bus, number: u8, byte: u8) {
        if number == MEMORY {
            bus.write(self.pair(HL), byte);
        } else {
            self.set_register(number, byte);
        }
    }

    fn set_pair(&mut self, number: u8, word: u16) {
        if number == SP_OR_PSW {
            self.sp = word;
            return;
        }
        let [high, low] = word.to_be_bytes();
        self.set_register(number * 2, high);
        self.set_register(number * 2 + 1, low);
    }

    /// What PUSH puts on the stack: a pair, or A and the flags.
    fn pushed(&self, number: u8) -> u16 {
        if number == SP_OR_PSW {
            return u16::from_be_bytes([self.a(), self.flags.to_byte()]);
        }
        self.pair(number)
    }

    fn set_pushed(&mut self, number: u8, word: u16) {
        if number == SP_OR_PSW {
            let [a, flags] = word.to_be_bytes();
            self.set_register(A, a);
            self.flags = Flags::from_byte(flags);
        } else {
            self.set_pair(number, word);
        }
    }
}

const _: () = assert!(HL * 2 == H && HL * 2 + 1 == L);
