//! Every opcode of the 8080, against rules that are written here once more, in other words.

use super::cpm::{self, Computer, End};
use super::{Bus, Cpu, Flags};

/// 64 KiB and a port that remembers.
struct Memory {
    bytes: Vec<u8>,
    port: u8,
}

impl Memory {
    fn with(code: &[u8]) -> Self {
        let mut bytes = vec![0; 0x1_0000];
        bytes[0x100..0x100 + code.len()].copy_from_slice(code);
        Self { bytes, port: 0 }
    }
}

impl Bus for Memory {
    fn read(&self, address: u16) -> u8 {
        self.bytes[usize::from(address)]
    }

    fn write(&mut self, address: u16, byte: u8) {
        self.bytes[usize::from(address)] = byte;
    }

    fn input(&mut self, port: u8) -> u8 {
        port ^ self.port
    }

    fn output(&mut self, port: u8, byte: u8) {
        self.port = port ^ byte;
    }
}

/// A CPU whose registers all differ: B to L are 0x12 to 0x1F, HL points to 0x2040, where 0x77 is.
fn cpu() -> Cpu {
    Cpu { registers: [0x12, 0x34, 0x56, 0x78, 0x20, 0x40, 0, 0x9A], pc: 0x100, sp: 0x3000, ..Cpu::default() }
}

/// Executes one instruction, with 0x77 at HL and 0x1234 on the stack.
fn execute(cpu: &mut Cpu, code: &[u8]) -> Memory {
    let mut memory = Memory::with(code);
    memory.bytes[0x2040] = 0x77;
    memory.bytes[0x3000..0x3002].copy_from_slice(&[0x34, 0x12]);
    cpu.step(&mut memory);
    memory
}

fn flags(byte: u8) -> Flags {
    Flags::from_byte(byte)
}

/// All five flags, in all 32 ways.
fn all_flags() -> impl Iterator<Item = Flags> {
    (0..=255u8).map(flags).filter(|flags| flags.to_byte() & 0b1101_0101 == flags.to_byte() & !2)
}

/// How long each instruction is, by the manual's table.
fn length(opcode: u8) -> u16 {
    match opcode {
        0x01 | 0x11 | 0x21 | 0x31 | 0x22 | 0x2A | 0x32 | 0x3A => 3,
        0x06 | 0x0E | 0x16 | 0x1E | 0x26 | 0x2E | 0x36 | 0x3E | 0xD3 | 0xDB => 2,
        0xC6 | 0xCE | 0xD6 | 0xDE | 0xE6 | 0xEE | 0xF6 | 0xFE => 2,
        0xC2 | 0xC3 | 0xC4 | 0xCA..=0xCD | 0xD2 | 0xD4 | 0xDA | 0xDC | 0xDD => 3,
        0xE2 | 0xE4 | 0xEA | 0xEC | 0xED | 0xF2 | 0xF4 | 0xFA | 0xFC | 0xFD => 3,
        _ => 1,
    }
}

/// Where control goes: unconditionally, or if a flag has a value.
fn condition(opcode: u8) -> Option<Box<dyn Fn(Flags) -> bool>> {
    let unconditional = [0xC3, 0xCB, 0xC9, 0xD9, 0xCD, 0xDD, 0xED, 0xFD, 0xE9];
    if unconditional.contains(&opcode) || opcode & 0xC7 == 0xC7 {
        return Some(Box::new(|_| true));
    }
    let is_conditional = opcode >= 0xC0 && matches!(opcode & 7, 0 | 2 | 4);
    is_conditional.then(|| -> Box<dyn Fn(Flags) -> bool> {
        match opcode >> 3 & 7 {
            0 => Box::new(|flags| !flags.zero),
            1 => Box::new(|flags| flags.zero),
            2 => Box::new(|flags| !flags.carry),
            3 => Box::new(|flags| flags.carry),
            4 => Box::new(|flags| !flags.parity),
            5 => Box::new(|flags| flags.parity),
            6 => Box::new(|flags| !flags.sign),
            _ => Box::new(|flags| flags.sign),
        }
    })
}

#[test]
fn every_opcode_goes_on_behind_itself_or_where_it_leads() {
    for opcode in 0..=255u8 {
        for flags in all_flags() {
            let before = Cpu { flags, ..cpu() };
            let mut cpu = before;
            execute(&mut cpu, &[opcode, 0x55, 0x44]);
            let next = 0x100 + length(opcode);
            let leads = match opcode {
                0xE9 => 0x2040,
                _ if opcode & 0xC7 == 0xC7 => u16::from(opcode & 0x38),
                _ if length(opcode) == 1 => 0x1234,
                _ => 0x4455,
            };
            let goes = condition(opcode).is_some_and(|condition| condition(flags));
            assert_eq!(cpu.pc, if goes { leads } else { next }, "{opcode:#04x} with {flags:?}");
        }
    }
}

#[test]
fn every_call_and_return_moves_the_stack() {
    for opcode in 0..=255u8 {
        let mut cpu = Cpu { flags: flags(0), ..cpu() };
        let memory = execute(&mut cpu, &[opcode, 0x55, 0x44]);
        let is_met = condition(opcode).is_some_and(|condition| condition(flags(0)));
        let calls = is_met && (opcode & 0xC7 == 0xC4 || opcode & 0xCF == 0xCD || opcode & 0xC7 == 0xC7);
        let returns = is_met && (opcode & 0xC7 == 0xC0 || opcode & 0xEF == 0xC9);
        let sp = match opcode {
            _ if calls || opcode & 0xCF == 0xC5 => 0x2FFE,
            _ if returns || opcode & 0xCF == 0xC1 => 0x3002,
            0x31 => 0x4455,
            0x33 => 0x3001,
            0x3B => 0x2FFF,
            0xF9 => 0x2040,
            _ => 0x3000,
        };
        assert_eq!(cpu.sp, sp, "{opcode:#04x}");
        if calls {
            let back = 0x100 + length(opcode);
            assert_eq!(
                u16::from_le_bytes([memory.bytes[0x2FFE], memory.bytes[0x2FFF]]),
                back,
                "{opcode:#04x}"
            );
        }
    }
}

/// The value of the operand `number` in [`cpu`], with 0x77 at HL.
fn operand(number: u8) -> u8 {
    [0x12, 0x34, 0x56, 0x78, 0x20, 0x40, 0x77, 0x9A][usize::from(number)]
}

#[test]
fn every_mov_and_mvi_moves_one_byte_and_no_flag() {
    for (destination, source) in (0..8).flat_map(|d| (0..8).map(move |s| (d, s))) {
        let opcode = 0x40 | destination << 3 | source;
        if opcode == 0x76 {
            continue;
        }
        let mut cpu = Cpu { flags: flags(0xFF), ..cpu() };
        let memory = execute(&mut cpu, &[opcode]);
        let moved =
            if destination == 6 { memory.bytes[0x2040] } else { cpu.registers[usize::from(destination)] };
        assert_eq!((moved, cpu.flags), (operand(source), flags(0xFF)), "{opcode:#04x}");

        let mut cpu = self::cpu();
        let memory = execute(&mut cpu, &[0x06 | destination << 3, 0xA5]);
        let moved =
            if destination == 6 { memory.bytes[0x2040] } else { cpu.registers[usize::from(destination)] };
        assert_eq!(moved, 0xA5);
    }
}

/// A, CY and AC after an operation, in the words of the manual.
fn calculated(number: u8, a: u8, b: u8, carry: bool) -> (u8, bool, bool) {
    let (wide, small) = (i32::from(a), i32::from(a & 15));
    let (other, other_small, carry) = (i32::from(b), i32::from(b & 15), i32::from(carry));
    match number {
        0 => ((wide + other) as u8, wide + other > 255, small + other_small > 15),
        1 => ((wide + other + carry) as u8, wide + other + carry > 255, small + other_small + carry > 15),
        2 | 7 => ((wide - other) as u8, wide < other, small >= other_small),
        3 => ((wide - other - carry) as u8, wide < other + carry, small >= other_small + carry),
        4 => (a & b, false, (a | b) & 8 != 0),
        5 => (a ^ b, false, false),
        _ => (a | b, false, false),
    }
}

#[test]
fn all_eight_operations_are_right_for_all_bytes() {
    for number in 0..8u8 {
        for (a, b) in (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| (a, b))) {
            for carry in [false, true] {
                let mut flags = Flags { carry, ..Flags::default() };
                let result = flags.calculate(number, a, b);
                let (expected, carry, half_carry) = calculated(number, a, b, carry);
                let parity = (0..8).filter(|bit| expected >> bit & 1 == 1).count().is_multiple_of(2);
                let (zero, sign) = (expected == 0, expected > 127);
                assert_eq!(
                    (result, flags),
                    (expected, Flags { sign, zero, half_carry, parity, carry }),
                    "operation {number}: {a:#x} {b:#x}"
                );
            }
        }
    }
}

#[test]
fn every_operation_takes_every_operand_and_cmp_keeps_a() {
    for (number, source) in (0..8).flat_map(|n| (0..8).map(move |s| (n, s))) {
        let mut cpu = cpu();
        execute(&mut cpu, &[0x80 | number << 3 | source]);
        let (result, ..) = calculated(number, 0x9A, operand(source), false);
        assert_eq!(cpu.a(), if number == 7 { 0x9A } else { result });

        let mut cpu = self::cpu();
        execute(&mut cpu, &[0xC6 | number << 3, 0x21]);
        let (result, ..) = calculated(number, 0x9A, 0x21, false);
        assert_eq!(cpu.a(), if number == 7 { 0x9A } else { result });
    }
}

#[test]
fn counting_wraps_and_keeps_the_carry() {
    for (byte, carry) in (0..=255u8).flat_map(|byte| [(byte, false), (byte, true)]) {
        let mut flags = Flags { carry, ..Flags::default() };
        let up = flags.increment(byte);
        assert_eq!(
            (up, flags.carry, flags.zero, flags.half_carry),
            (byte.wrapping_add(1), carry, byte == 255, up & 15 == 0)
        );
        let down = flags.decrement(byte);
        assert_eq!((down, flags.carry), (byte.wrapping_sub(1), carry));
        assert_eq!((flags.zero, flags.half_carry), (byte == 1, down & 15 != 15));
    }
    for number in 0..8u8 {
        let mut cpu = cpu();
        let memory = execute(&mut cpu, &[0x04 | number << 3]);
        let counted = if number == 6 { memory.bytes[0x2040] } else { cpu.registers[usize::from(number)] };
        assert_eq!(counted, operand(number) + 1);
        let mut cpu = self::cpu();
        let memory = execute(&mut cpu, &[0x05 | number << 3]);
        let counted = if number == 6 { memory.bytes[0x2040] } else { cpu.registers[usize::from(number)] };
        assert_eq!(counted, operand(number) - 1);
    }
}

#[test]
fn decimal_numbers_add_as_on_paper() {
    let bcd = |number: u8| ((number / 10) << 4) | (number % 10);
    for (x, y) in (0..100u8).flat_map(|x| (0..100u8).map(move |y| (x, y))) {
        let mut flags = Flags::default();
        let sum = flags.calculate(0, bcd(x), bcd(y));
        let adjusted = flags.adjust_decimal(sum);
        assert_eq!((adjusted, flags.carry), (bcd((x + y) % 100), x + y > 99), "{x} + {y}");
    }
}

#[test]
fn pairs_are_loaded_counted_added_pushed_and_popped() {
    for pair in 0..4u8 {
        let value = [0x1234, 0x5678, 0x2040, 0x3000][usize::from(pair)];
        let after = |code: &[u8]| {
            let mut cpu = cpu();
            execute(&mut cpu, code);
            cpu
        };
        assert_eq!(after(&[0x01 | pair << 4, 0xCD, 0xAB]).pair(pair), 0xABCD);
        assert_eq!(after(&[0x03 | pair << 4]).pair(pair), value + 1);
        assert_eq!(after(&[0x0B | pair << 4]).pair(pair), value - 1);
        assert_eq!(after(&[0x09 | pair << 4]).pair(2), 0x2040 + value);

        let mut cpu = Cpu { flags: flags(0xD5), ..cpu() };
        let memory = execute(&mut cpu, &[0xC5 | pair << 4]);
        let pushed = u16::from_le_bytes([memory.bytes[0x2FFE], memory.bytes[0x2FFF]]);
        assert_eq!(pushed, if pair == 3 { 0x9AD7 } else { value });
        let popped = after(&[0xC1 | pair << 4]);
        if pair == 3 {
            assert_eq!((popped.a(), popped.flags), (0x12, flags(0x34)));
        } else {
            assert_eq!(popped.pair(pair), 0x1234);
        }
    }
    let mut cpu = Cpu { registers: [0xFF, 0xFF, 0, 0, 0, 1, 0, 0], ..cpu() };
    execute(&mut cpu, &[0x09]);
    assert!(cpu.flags.carry && cpu.pair(2) == 0, "DAD tells of its carry");
}

#[test]
fn what_loads_and_stores_uses_the_address_it_names() {
    let run = |code: &[u8]| {
        let mut cpu = cpu();
        let mut memory = Memory::with(code);
        memory.bytes[0x1234] = 0xAA;
        memory.bytes[0x5678] = 0xBB;
        memory.bytes[0x4455..0x4457].copy_from_slice(&[0xCC, 0xDD]);
        memory.bytes[0x3000..0x3002].copy_from_slice(&[0x34, 0x12]);
        cpu.step(&mut memory);
        (cpu, memory.bytes)
    };
    assert_eq!(run(&[0x0A]).0.a(), 0xAA, "LDAX B");
    assert_eq!(run(&[0x1A]).0.a(), 0xBB, "LDAX D");
    assert_eq!(run(&[0x3A, 0x55, 0x44]).0.a(), 0xCC, "LDA");
    assert_eq!(run(&[0x2A, 0x55, 0x44]).0.pair(2), 0xDDCC, "LHLD");
    assert_eq!(run(&[0x02]).1[0x1234], 0x9A, "STAX B");
    assert_eq!(run(&[0x12]).1[0x5678], 0x9A, "STAX D");
    assert_eq!(run(&[0x32, 0x55, 0x44]).1[0x4455], 0x9A, "STA");
    assert_eq!(run(&[0x22, 0x55, 0x44]).1[0x4455..0x4457], [0x40, 0x20], "SHLD");
    let (cpu, memory) = run(&[0xE3]);
    assert_eq!((cpu.pair(2), &memory[0x3000..0x3002]), (0x1234, &[0x40, 0x20][..]), "XTHL");
    let (cpu, _) = run(&[0xEB]);
    assert_eq!((cpu.pair(1), cpu.pair(2)), (0x2040, 0x5678), "XCHG");
}

#[test]
fn rotations_go_through_the_carry_or_around_it() {
    for (opcode, a, carry, expected) in [
        (0x07, 0x81, false, (0x03, true)),
        (0x0F, 0x81, false, (0xC0, true)),
        (0x17, 0x81, false, (0x02, true)),
        (0x17, 0x01, true, (0x03, false)),
        (0x1F, 0x81, false, (0x40, true)),
        (0x1F, 0x80, true, (0xC0, false)),
        (0x2F, 0x0F, true, (0xF0, true)),
        (0x37, 0x55, false, (0x55, true)),
        (0x3F, 0x55, true, (0x55, false)),
    ] {
        let mut cpu = cpu();
        cpu.registers[7] = a;
        cpu.flags.carry = carry;
        execute(&mut cpu, &[opcode]);
        assert_eq!((cpu.a(), cpu.flags.carry), expected, "{opcode:#04x}");
    }
}

#[test]
fn ports_interrupts_and_the_halt_do_as_they_say() {
    let mut cpu = cpu();
    assert_eq!(execute(&mut cpu, &[0xD3, 0x10]).port, 0x10 ^ 0x9A, "OUT");
    execute(&mut Cpu { pc: 0x100, ..cpu }, &[0xDB, 0x10]);
    let mut cpu = self::cpu();
    execute(&mut cpu, &[0xDB, 0x10]);
    assert_eq!(cpu.a(), 0x10, "IN");
    for (opcode, has_interrupts) in [(0xFB, true), (0xF3, false)] {
        let mut cpu = self::cpu();
        execute(&mut cpu, &[opcode]);
        assert_eq!(cpu.has_interrupts, has_interrupts);
    }
    let mut cpu = self::cpu();
    execute(&mut cpu, &[0x76]);
    assert!(cpu.is_halted);
}

#[test]
fn eight_opcodes_do_nothing_at_all() {
    for opcode in [0x00, 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38] {
        let mut cpu = cpu();
        execute(&mut cpu, &[opcode]);
        assert_eq!(cpu, Cpu { pc: 0x101, ..self::cpu() }, "{opcode:#04x}");
    }
}

#[test]
fn programs_that_do_not_end_well_are_told_apart() {
    let run = |program: &[u8]| {
        let mut memory = Box::new([0; 0x1_0000]);
        let mut printed = Vec::new();
        let end =
            cpm::run(program, &mut Computer { memory: &mut memory, print: |byte| printed.push(byte) }, 1000);
        (end, printed.len())
    };
    assert_eq!(run(&[0xC9]), (End::Done, 0), "RET");
    assert_eq!(run(&[0x76]), (End::Halted, 0), "HLT");
    assert_eq!(run(&[0xC3, 0x00, 0x01]), (End::OutOfTime, 0), "JMP 100");
    assert_eq!(run(&[0x0E, 0x63, 0xCD, 0x05, 0x00]), (End::UnknownFunction(0x63), 0), "MVI C, 63; CALL 5");
    let (end, printed) = run(&[0x0E, 9, 0x11, 0, 0x80, 0xCD, 0x05, 0x00, 0xC9]);
    assert_eq!((end, printed), (End::Done, 0x1_0000), "a text without end is all of memory");
}
