//! Programs for the 8080: a hello as CP/M's programmers wrote it, and a self-test of the CPU.
//!
//! Assembled by hand, for a start at 0x100; numbers in the mnemonics are hexadecimal, as they were then. The system is called
//! at 5 and prints the text at DE, up to a `$`, when C is 9.

/// Prints a line.
pub const HELLO: &[u8] = b"\x0E\x09\
    \x11\x09\x01\
    \xCD\x05\x00\
    \xC9\
    8080: hello from 1974\n$";

/// Where the texts of the self-test lie in it, behind its code.
const TEXTS: usize = 151;

/// Tries arithmetic, flags, decimal numbers, loops, memory, the stack and calls, and prints whether all of it was right.
pub const SELF_TEST: &[u8] = &{
    let mut program = [0; TEXTS + PASSED.len() + WRONG.len()];
    let (mut at, parts) = (0, [SELF_TEST_CODE.as_slice(), PASSED, WRONG]);
    let mut part = 0;
    while part < parts.len() {
        let mut byte = 0;
        while byte < parts[part].len() {
            program[at] = parts[part][byte];
            (at, byte) = (at + 1, byte + 1);
        }
        part += 1;
    }
    program
};

const PASSED: &[u8] = b"8080: the self-test has passed\n$";
const WRONG: &[u8] = b"8080: the self-test has FAILED\n$";

#[rustfmt::skip]
const SELF_TEST_CODE: [u8; TEXTS] = [
    // 15 + 1: a carry out of bit 3, and nothing else but the bit that is always set.
    0x3E, 0x0F,        // MVI A, 0F
    0xC6, 0x01,        // ADI 01
    0xF5,              // PUSH PSW
    0xC1,              // POP B
    0x79,              // MOV A, C
    0xFE, 0x12,        // CPI 12
    0xC2, 0x91, 0x01,  // JNZ failed
    // 16 - 32: a borrow, a sign, even parity.
    0x3E, 0x10,        // MVI A, 10
    0xD6, 0x20,        // SUI 20
    0xF5,              // PUSH PSW
    0xC1,              // POP B
    0x79,              // MOV A, C
    0xFE, 0x97,        // CPI 97
    0xC2, 0x91, 0x01,  // JNZ failed
    // 19 + 28 = 47, in decimal digits.
    0x3E, 0x19,        // MVI A, 19
    0xC6, 0x28,        // ADI 28
    0x27,              // DAA
    0xFE, 0x47,        // CPI 47
    0xC2, 0x91, 0x01,  // JNZ failed
    // Logic, and rotations through the carry.
    0x3E, 0xF0,        // MVI A, F0
    0xE6, 0x3C,        // ANI 3C
    0xEE, 0x33,        // XRI 33
    0xF6, 0x80,        // ORI 80
    0xFE, 0x83,        // CPI 83
    0xC2, 0x91, 0x01,  // JNZ failed
    0x07,              // RLC
    0xFE, 0x07,        // CPI 07
    0xC2, 0x91, 0x01,  // JNZ failed
    0x37,              // STC
    0x1F,              // RAR
    0xFE, 0x83,        // CPI 83
    0xC2, 0x91, 0x01,  // JNZ failed
    // The sum of 10 to 1, in a loop.
    0x06, 0x0A,        // MVI B, 0A
    0xAF,              // XRA A
    0x80,              // loop: ADD B
    0x05,              // DCR B
    0xC2, 0x3F, 0x01,  // JNZ loop
    0xFE, 0x37,        // CPI 37
    0xC2, 0x91, 0x01,  // JNZ failed
    // Pairs: 1234 doubled.
    0x21, 0x34, 0x12,  // LXI H, 1234
    0x29,              // DAD H
    0x7C,              // MOV A, H
    0xFE, 0x24,        // CPI 24
    0xC2, 0x91, 0x01,  // JNZ failed
    0x7D,              // MOV A, L
    0xFE, 0x68,        // CPI 68
    0xC2, 0x91, 0x01,  // JNZ failed
    // Memory, by HL.
    0x21, 0x00, 0x20,  // LXI H, 2000
    0x36, 0x5A,        // MVI M, 5A
    0x7E,              // MOV A, M
    0x34,              // INR M
    0x86,              // ADD M
    0xFE, 0xB5,        // CPI B5
    0xC2, 0x91, 0x01,  // JNZ failed
    // The stack: a word goes there, is exchanged, and comes back.
    0x11, 0xEF, 0xBE,  // LXI D, BEEF
    0xD5,              // PUSH D
    0x21, 0x22, 0x11,  // LXI H, 1122
    0xE3,              // XTHL
    0xD1,              // POP D
    0x7C,              // MOV A, H
    0xFE, 0xBE,        // CPI BE
    0xC2, 0x91, 0x01,  // JNZ failed
    0x7B,              // MOV A, E
    0xFE, 0x22,        // CPI 22
    0xC2, 0x91, 0x01,  // JNZ failed
    // A subroutine that is called when there is no carry, and returns when there is one.
    0xAF,              // XRA A
    0xD4, 0x8D, 0x01,  // CNC subroutine
    0xFE, 0x2A,        // CPI 2A
    0xC2, 0x91, 0x01,  // JNZ failed
    // All of it is right: print that, and return to the system.
    0x11, 0x97, 0x01,  // LXI D, passed
    0x0E, 0x09,        // print: MVI C, 09
    0xCD, 0x05, 0x00,  // CALL 0005
    0xC9,              // RET
    0x3E, 0x2A,        // subroutine: MVI A, 2A
    0x37,              // STC
    0xD8,              // RC
    0x11, 0xB7, 0x01,  // failed: LXI D, wrong
    0xC3, 0x87, 0x01,  // JMP print
];

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::super::cpm::{self, Computer, End};
    use super::*;

    fn printed(program: &[u8]) -> String {
        let mut memory = Box::new([0; 0x1_0000]);
        let mut printed = Vec::new();
        let end = cpm::run(
            program,
            &mut Computer { memory: &mut memory, print: |byte| printed.push(byte) },
            10_000,
        );
        assert_eq!(end, End::Done);
        String::from_utf8(printed).expect("ASCII")
    }

    #[test]
    fn the_hello_prints_its_line() {
        assert_eq!(printed(HELLO), "8080: hello from 1974\n");
    }

    #[test]
    fn the_self_test_passes_and_notices_what_is_wrong() {
        assert_eq!(printed(SELF_TEST), "8080: the self-test has passed\n");
        // Each constant in it that is made another makes it fail.
        for (index, pair) in SELF_TEST_CODE.windows(2).enumerate() {
            if let [0xFE, expected] = *pair
                && SELF_TEST_CODE.get(index + 2) == Some(&0xC2)
            {
                let mut wrong = SELF_TEST.to_vec();
                wrong[index + 1] = !expected;
                assert_eq!(printed(&wrong), "8080: the self-test has FAILED\n", "at {index}");
            }
        }
    }
}
