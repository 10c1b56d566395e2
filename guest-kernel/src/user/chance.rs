//! Programs made by chance, for tests of the kernel: what they do is nobody's intention.
//!
//! A seed makes a program, always the same. Mere noise is an invalid instruction soon; so pieces that do something are
//! strewn in: calls by both ways, addresses that matter, accesses.

use alloc::vec::Vec;

use user_library::abi::SystemCall;

use super::end::End;
use super::memory::{HEAP, IMAGE, STACK, STACK_END};
use super::pipe::pipe;
use super::process::Process;
use super::scheduler::Scheduler;

/// Numbers that are borders of something.
const WORDS: [u64; 20] = [
    0,
    1,
    2,
    8,
    255,
    4096,
    4097,
    0x10_0000,
    shared_abi::layout::STACK_END.0,
    STACK,
    STACK_END - 8,
    STACK_END,
    IMAGE,
    IMAGE + 4092,
    HEAP,
    1 << 47,
    (1 << 47) - 1,
    0xFFFF_8000_0000_0000,
    1 << 63,
    u64::MAX,
];

/// Runs a program of bytes by chance to its end.
pub fn run_bytes(seed: u64) -> End {
    let mut chance = Chance::new(seed);
    let mut code = Vec::new();
    while code.len() < 256 {
        match chance.below(16) {
            0 => code.extend(SYSCALL),
            1 => code.extend([0xCD, 0x80]),
            2..=4 => mov(&mut code, chance.below(16) as u8, chance.word()),
            // `mov` from and to memory at a register.
            5 => code.extend([0x8A, chance.below(8) as u8]),
            6 => code.extend([0x88, chance.below(8) as u8]),
            // `push`, `pop`.
            7 => code.extend([0x50 + chance.below(16) as u8]),
            _ => code.extend((0..1 + chance.below(4)).map(|_| chance.below(256) as u8)),
        }
    }
    run(&code)
}

/// Runs a program of calls by chance to its end. None of them sleeps, or uses the console.
pub fn run_calls(seed: u64) -> End {
    let mut chance = Chance::new(seed);
    let mut code = Vec::new();
    for _ in 0..8 {
        let number = match chance.below(SystemCall::ALL.len() as u64 + 2) {
            sleep if sleep == SystemCall::Sleep as u64 => SystemCall::Yield as u64,
            number => number,
        };
        // Handles 1 and 2 are both ends of a pipe.
        let first = if chance.below(4) == 0 { chance.word().max(1) } else { 1 + chance.below(2) };
        let arguments = [(RAX, number), (RDI, first), (RSI, chance.word()), (RDX, chance.word())];
        arguments.into_iter().for_each(|(register, word)| mov(&mut code, register, word));
        code.extend(SYSCALL);
    }
    run(&code)
}

fn run(code: &[u8]) -> End {
    let (sender, receiver) = pipe();
    let process = Process::from_code("chance", code).expect("there is memory for a page of code");
    let mut scheduler = Scheduler::new();
    scheduler.start(process.with_time_limit(1).with_sender(sender).with_receiver(receiver));
    scheduler.run().pop().expect("one was started").end
}

const SYSCALL: [u8; 2] = [0x0F, 0x05];

/// Registers as instructions number them (Intel SDM vol. 2A, table 2-4).
const RAX: u8 = 0;
const RDX: u8 = 2;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// `mov register, word`
fn mov(code: &mut Vec<u8>, register: u8, word: u64) {
    code.extend([0x48 | register >> 3, 0xB8 | register & 7]);
    code.extend(word.to_le_bytes());
}

/// Xorshift: numbers that repeat themselves for a seed, and look like chance.
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        // 0 would stay 0; and neighbours should not look alike.
        Self((seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 32) % end
    }

    fn word(&mut self) -> u64 {
        WORDS.get(self.below(WORDS.len() as u64) as usize).copied().unwrap_or_default()
    }
}
