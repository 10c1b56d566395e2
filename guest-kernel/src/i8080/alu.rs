//! Arithmetic of the 8080, and the five flags that it leaves.

/// The flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// S: bit 7 of the result.
    pub sign: bool,
    /// Z: the result is 0.
    pub zero: bool,
    /// AC: a carry out of bit 3, for decimal numbers.
    pub half_carry: bool,
    /// P: an even number of bits is set.
    pub parity: bool,
    /// CY: a carry out of bit 7, or a borrow.
    pub carry: bool,
}

/// Bits of the byte that `PUSH PSW` writes: S Z 0 AC 0 P 1 CY.
const SIGN: u8 = 1 << 7;
const ZERO: u8 = 1 << 6;
const HALF_CARRY: u8 = 1 << 4;
const PARITY: u8 = 1 << 2;
const ALWAYS: u8 = 1 << 1;
const CARRY: u8 = 1 << 0;

impl Flags {
    /// The byte that `PUSH PSW` writes.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        bit(self.sign, SIGN)
            | bit(self.zero, ZERO)
            | bit(self.half_carry, HALF_CARRY)
            | bit(self.parity, PARITY)
            | ALWAYS
            | bit(self.carry, CARRY)
    }

    /// What `POP PSW` makes of a byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Self {
        Self {
            sign: byte & SIGN != 0,
            zero: byte & ZERO != 0,
            half_carry: byte & HALF_CARRY != 0,
            parity: byte & PARITY != 0,
            carry: byte & CARRY != 0,
        }
    }

    /// Whether the condition `number` holds: NZ, Z, NC, C, PO, PE, P, M.
    pub(super) fn meet(self, number: u8) -> bool {
        let flag = match number >> 1 {
            0 => self.zero,
            1 => self.carry,
            2 => self.parity,
            _ => self.sign,
        };
        flag == (number & 1 == 1)
    }

    /// The operation `number` with two bytes: ADD, ADC, SUB, SBB, ANA, XRA, ORA, CMP.
    pub(super) fn calculate(&mut self, number: u8, a: u8, b: u8) -> u8 {
        let carry = u8::from(self.carry);
        match number {
            0 => self.add(a, b, 0),
            1 => self.add(a, b, carry),
            2 | 7 => self.subtract(a, b, 0),
            3 => self.subtract(a, b, carry),
            4 => {
                // The one oddity: AC is the OR of both bits 3.
                let result = self.logic(a & b);
                self.half_carry = (a | b) & 8 != 0;
                result
            }
            5 => self.logic(a ^ b),
            _ => self.logic(a | b),
        }
    }

    fn add(&mut self, a: u8, b: u8, carry: u8) -> u8 {
        let sum = u16::from(a) + u16::from(b) + u16::from(carry);
        self.half_carry = (a & 15) + (b & 15) + carry > 15;
        self.carry = sum > 0xFF;
        self.set_by(sum as u8)
    }

    /// The 8080 subtracts by adding the complement: AC is the carry of that, so that it is set where nothing is borrowed.
    fn subtract(&mut self, a: u8, b: u8, borrow: u8) -> u8 {
        let result = self.add(a, !b, 1 - borrow);
        self.carry = !self.carry;
        result
    }

    fn logic(&mut self, result: u8) -> u8 {
        (self.carry, self.half_carry) = (false, false);
        self.set_by(result)
    }

    /// INR: all flags but CY.
    pub(super) fn increment(&mut self, byte: u8) -> u8 {
        self.half_carry = byte & 15 == 15;
        self.set_by(byte.wrapping_add(1))
    }

    /// DCR: all flags but CY.
    pub(super) fn decrement(&mut self, byte: u8) -> u8 {
        self.half_carry = byte & 15 != 0;
        self.set_by(byte.wrapping_sub(1))
    }

    /// DAA: makes two decimal digits of a sum of two such bytes.
    pub(super) fn adjust_decimal(&mut self, a: u8) -> u8 {
        let (low, high) = (a & 15, a >> 4);
        let fixes_low = low > 9 || self.half_carry;
        let fixes_high = high > 9 || self.carry || (high == 9 && low > 9);
        let correction = if fixes_low { 6 } else { 0 } + if fixes_high { 0x60 } else { 0 };
        let result = self.add(a, correction, 0);
        self.carry = fixes_high;
        result
    }

    fn set_by(&mut self, result: u8) -> u8 {
        self.sign = result & 0x80 != 0;
        self.zero = result == 0;
        self.parity = result.count_ones().is_multiple_of(2);
        result
    }
}
