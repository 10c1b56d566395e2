//! Hypercalls, as they should be and as they should not.

use guest_kernel::hypercall::{
    self, Answer, ExitKind, Hypercall, HypercallError, call, console_write, exit_count, exit_count_of,
};
use guest_kernel::{Gva, arguments, boot_info, mark, println, println_raw};
use shared_abi::hypercall::LogLevel;
use shared_abi::layout;

use crate::{Deed, number};

pub(crate) const DEEDS: &[Deed] = &[
    ("exit-by-call", exit_by_call),
    ("println", || println!("a line with a number: {}", number())),
    ("println-raw", || println_raw!("byte by byte")),
    ("long-line", || println!("{:>2000}", "end")),
    ("echo", echo),
    ("try-read", try_read),
    ("count-exits", count_exits),
    ("translate", || println!("{:x?}", hypercall::translate(Gva(number())))),
    ("clocks", clocks),
    ("random", random),
    ("arguments-by-call", arguments_by_call),
    ("log", log),
    ("log-words", || arguments().skip(1).for_each(log_word)),
    ("marks", marks),
    ("open-marks", || (0..number()).for_each(|_| mark::begin("never ended"))),
    ("unbegun-marks", || (0..number()).for_each(|_| mark::end())),
    ("misuse", misuse),
    ("raw-calls", raw_calls),
    ("hostile", hostile),
];

fn exit_by_call() {
    let answer = call(Hypercall::Exit { code: number() });
    panic!("the guest continues after its end: {answer:?}");
}

/// Says back what was typed, until its end.
fn echo() {
    let mut buffer = [0; 64];
    loop {
        match hypercall::console_read(&mut buffer) {
            Ok(0) => return println!("(end)"),
            Ok(count) => console_write(buffer.get(..count).unwrap_or_default()).expect("a console"),
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Adds a word to the host's log as it is, whatever it has.
fn log_word(word: &str) {
    hypercall::log(LogLevel::Info, "words", word).expect("a log");
}

fn try_read() {
    println!("{:?}", hypercall::console_try_read(&mut [0; 8]));
}

/// Ten port writes, three calls; then what the host has counted.
fn count_exits() {
    println_raw!("ten bytes");
    for _ in 0..3 {
        let _ = exit_count();
    }
    let (outs, calls, all) =
        (exit_count_of(ExitKind::PioOut), exit_count_of(ExitKind::Hypercall), exit_count());
    println!("{outs} port writes, {calls} calls, {all} exits");
}

fn clocks() {
    let (first, second) = (hypercall::monotonic_ns(), hypercall::monotonic_ns());
    println!("{} {}", second >= first, hypercall::wall_ns());
}

fn random() {
    let mut bytes = [0; 16];
    hypercall::random_bytes(&mut bytes).expect("16 bytes");
    println!("{bytes:02x?}");
}

fn arguments_by_call() {
    let mut buffer = [0u8; 8];
    let (buffer_gva, buffer_size) = (Gva(&raw mut buffer as u64), buffer.len() as u64);
    let total = call(Hypercall::Arguments { buffer_gva, buffer_size });
    println!("{total:?} {:?}", core::str::from_utf8(&buffer));
}

fn log() {
    hypercall::log(LogLevel::Warn, "probe", "first\nsecond").expect("a log");
    hypercall::log(LogLevel::Debug, "probe", "only for who asks").expect("a log");
    println!("{:?}", hypercall::log(LogLevel::Info, "probe", text_of(5000)));
}

/// Spans in spans, a record in the inner one, and a name that is no text.
fn marks() {
    let _outer = mark::span("outer");
    {
        let _inner = mark::span("inner \"quoted\"");
        hypercall::log(LogLevel::Info, "probe", "inside both").expect("a log");
    }
    mark::begin("by hand");
    mark::end();
    let name_gva = Gva(NO_TEXT.as_ptr() as u64);
    println!("{:?}", call(Hypercall::MarkBegin { name_gva, name_size: NO_TEXT.len() as u64 }));
    println!("{:?}", call(Hypercall::MarkBegin { name_gva, name_size: u64::MAX }));
}

static NO_TEXT: [u8; 2] = [0xFF, 0xFE];

/// Text of `size` bytes that nobody wrote: the zeros of unused RAM.
fn text_of(size: usize) -> &'static str {
    // SAFETY: Free RAM below the stack is mapped and zero, and zeros are UTF-8. Nothing in this program writes there.
    unsafe { core::str::from_utf8_unchecked(core::slice::from_raw_parts(FREE as *const u8, size)) }
}

/// Free RAM below the stack guard.
const FREE: u64 = 0x1_0000;

static READ_ONLY: [u8; 16] = *b"do not overwrite";

/// Every wrong pointer, to a call that reads memory and to one that writes it.
fn misuse() {
    let ram_end = boot_info().ram[0].end;
    for (name, gva, size) in [
        ("null", 0, 16),
        ("null, nothing", 0, 0),
        ("unaligned", FREE + 3, 13),
        ("huge", FREE, u64::MAX),
        ("larger than ram", FREE, ram_end + 1),
        ("wrapping", u64::MAX - 7, 16),
        ("to the very end", u64::MAX - 15, 16),
        ("unmapped in the middle", layout::STACK_GUARD.0 - 8, layout::STACK_GUARD_SIZE + 16),
        ("read-only", READ_ONLY.as_ptr() as u64, 16),
        ("boot info", layout::BOOT_INFO.0, 16),
        ("straddling the end of ram", ram_end - 8, 16),
        ("up to the end of ram", ram_end - 8, 8),
        ("guard page", layout::STACK_GUARD.0, 16),
        ("hole", layout::CONSOLE_MMIO.0, 16),
        ("non-canonical", 1 << 47, 16),
    ] {
        let log = Hypercall::Log {
            level: LogLevel::Trace,
            target_gva: Gva(gva),
            target_size: size,
            text_gva: Gva(FREE),
            text_size: 0,
        };
        let from = short(call(log));
        let to = short(call(Hypercall::RandomBytes { buffer_gva: Gva(gva), buffer_size: size }));
        println!("{name}: host writes {to}, host reads {from}");
    }
    println!("{}", core::str::from_utf8(&READ_ONLY).unwrap_or("overwritten"));
}

fn short(answer: Result<u64, HypercallError>) -> &'static str {
    match answer {
        Ok(_) => "ok",
        Err(HypercallError::BadAddress) => "bad address",
        Err(HypercallError::TooLarge) => "too large",
        Err(_) => "another error",
    }
}

/// The calls whose registers stand in the arguments, seven numbers a call; says what RAX held behind each.
fn raw_calls() {
    let mut words = arguments().skip(1).map(|word| word.parse().expect("a number"));
    while let Some(call_number) = words.next() {
        let mut next = || words.next().expect("six arguments behind each number");
        let (rax, _) = ring(call_number, [(); 6].map(|()| next()));
        println!("rax {rax}");
    }
}

/// So many calls with numbers and arguments by chance; says how many the host did.
fn hostile() {
    let seed = arguments().nth(2).and_then(|word| word.parse().ok()).unwrap_or(1);
    let mut chance = Chance(seed);
    let mut done = 0u64;
    for _ in 0..number() {
        done += u64::from(by_chance(&mut chance).is_ok());
    }
    println!("\n{} calls, some done: {}", number(), done > 0);
}

/// A call with number and arguments by chance.
pub(crate) fn by_chance(chance: &mut Chance) -> Answer {
    let call_number = match chance.next() % 40 {
        // Exit and a told exception would end it.
        1 | 28 => 4,
        other => other,
    };
    let (rax, rdi) = ring(call_number, [(); 6].map(|()| chance.word()));
    shared_abi::hypercall::decode_answer(rax, rdi)
}

/// Random numbers (xorshift64); the seed is not 0.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A word as an attacker would choose it: often at an edge, seldom anything at all.
    fn word(&mut self) -> u64 {
        let edges = [0, 1, 2, 3, 16, 4096, FREE, FREE + 8, layout::STACK_GUARD.0, layout::KERNEL.0];
        let far = [u64::MAX, 1 << 47, 1 << 63, 1 << 32, layout::CONSOLE_MMIO.0, boot_info().ram[0].end];
        let chance = self.next();
        match chance % 8 {
            0 => self.next(),
            1 => *far.get((chance >> 8) as usize % far.len()).unwrap_or(&0),
            2 => FREE + (chance >> 8) % 0x2_0000,
            _ => *edges.get((chance >> 8) as usize % edges.len()).unwrap_or(&0),
        }
    }
}

/// The doorbell with any registers at all.
#[cfg(target_os = "none")]
fn ring(number: u64, arguments: [u64; 6]) -> (u64, u64) {
    let [rdi, rsi, rdx, r10, r8, r9] = arguments;
    let (rax, answer);
    // SAFETY: None: this is the crime. The addresses that `Chance` gives and the host may write to are free RAM, where
    // this program keeps nothing; a wild one may end the guest, and then the test sees that.
    unsafe {
        core::arch::asm!(
            "out {port}, eax",
            port = const shared_abi::ports::HYPERCALL,
            inlateout("rax") number => rax,
            inlateout("rdi") rdi => answer,
            in("rsi") rsi,
            in("rdx") rdx,
            in("r10") r10,
            in("r8") r8,
            in("r9") r9,
            options(nostack),
        );
    }
    (rax, answer)
}

#[cfg(not(target_os = "none"))]
fn ring(_number: u64, _arguments: [u64; 6]) -> (u64, u64) {
    (0, 0)
}
