//! A process: registers, memory, and what it may reach.
//!
//! That is all there is of it. It has no stack in the kernel: what it waits for is a value ([`Wait`]), and a call that
//! could not be answered is tried again later, as if it had just been made.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use shared_abi::Gva;
use shared_abi::addr::PAGE_SIZE;
use shared_abi::define::Shared;
use user_library::abi;

use super::calls::{self, Outcome};
use super::doors::{self, Arrival};
use super::elf::{Executable, ImageError};
use super::memory::{IMAGE, MAX_PAGES, Memory, MemoryError, STACK_END};
use super::pipe::{Receiver, Sender};
use super::{enter, setup};
use crate::cpu::{flags, gdt};
use crate::exceptions::{ExceptionFrame, Vector};
use crate::memory::paging::Rights;

/// A program for ring 3: what a process is made of.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// What it is called.
    pub name: &'static str,
    /// Its ELF file.
    pub image: &'static [u8],
}

/// Takes a program of `user-library/src/bin` into this image: `user::program!("greets")`.
#[macro_export]
macro_rules! user_program {
    ($name:literal) => {
        $crate::user::Program {
            name: $name,
            #[cfg(target_os = "none")]
            image: include_bytes!(concat!(env!("OUT_DIR"), "/", $name)),
            #[cfg(not(target_os = "none"))]
            image: &[],
        }
    };
}

/// A program that runs, or could.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    /// Its number, once it was started.
    id: u64,
    argument: u64,
    registers: Registers,
    memory: Memory,
    handles: Vec<Handle>,
    /// What the call that it has made waits for.
    wait: Option<Wait>,
    /// Whether its call may have the whole machine wait, at the next turn.
    is_patient: bool,
    /// How many slices it may use up, if there is a limit.
    slices: Option<u64>,
}

/// What a number in a program stands for.
#[derive(Debug)]
pub(super) enum Handle {
    Console,
    Sender(Sender),
    Receiver(Receiver),
    Closed,
}

/// What a process waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Something to read from a pipe.
    Bytes,
    /// Room in a pipe.
    Room,
    /// Something typed.
    Typing,
    /// A time, by the [clock](crate::time::clock).
    Until(u64),
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes from a pipe",
            Self::Room => "room in a pipe",
            Self::Typing => "something typed",
            Self::Until(_) => "its time",
        })
    }
}

/// Why a process cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// Its file is none that can be run.
    Image(ImageError),
    /// There is no memory for it.
    Memory(MemoryError),
}

impl From<ImageError> for LoadError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<MemoryError> for LoadError {
    fn from(error: MemoryError) -> Self {
        Self::Memory(error)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::Memory(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LoadError {}

/// How a process has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It called [`Exit`](abi::SystemCall::Exit) with this code.
    Exited(u64),
    /// It did what it cannot do, with these registers.
    Died(Box<ExceptionFrame>),
    /// It waits for what only others could give that wait themselves.
    Stuck(Wait),
    /// It has used up [the time it had](Process::with_time_limit).
    OutOfTime,
}

impl fmt::Display for End {
    /// `exited with 0`, `died of #PF (page fault) at 0x8 (a read, nothing is mapped), RIP 0x8000100003`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with {code}"),
            Self::Stuck(wait) => write!(f, "waits for {wait} for ever"),
            Self::OutOfTime => f.write_str("has used up its time"),
            Self::Died(frame) => {
                write!(f, "died of {}", **frame)?;
                match frame.vector() {
                    Some(Vector::PageFault) => write!(f, " ({})", access(frame.error_code))?,
                    Some(vector) if vector.has_error_code() && frame.error_code != 0 => {
                        write!(f, " (error code {:#x})", frame.error_code)?;
                    }
                    _ => {}
                }
                write!(f, ", RIP {:#x}", frame.rip)
            }
        }
    }
}

/// What a page fault's error code says (Intel SDM vol. 3A, 4.7).
fn access(error_code: u64) -> &'static str {
    let is = |bit: u32| error_code >> bit & 1 == 1;
    match (is(0), is(1), is(4)) {
        (false, _, true) => "a fetch, nothing is mapped",
        (false, true, _) => "a write, nothing is mapped",
        (false, false, _) => "a read, nothing is mapped",
        (true, _, true) => "a fetch, not allowed there",
        (true, true, _) => "a write, not allowed there",
        (true, false, _) => "a read, not allowed there",
    }
}

/// How a turn of a process has ended.
#[derive(Debug)]
pub(super) enum Turn {
    /// It could go on, and gives way.
    Paused,
    /// It could go on, and its time is up.
    TimeUp,
    /// It waits from now on.
    Waits,
    /// It waits as before: the turn has moved nothing.
    StillWaits,
    /// It is over.
    Ended(End),
}

impl Process {
    /// Loads a program. It has the console, handle 0, and no argument.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(program: &Program) -> Result<Self, LoadError> {
        let executable = Executable::parse(program.image)?;
        let mut memory = Memory::new()?;
        for segment in executable.segments() {
            let segment = segment?;
            let mut content = segment.content.chunks(PAGE_SIZE as usize);
            for page in (segment.start.0..segment.end.0).step_by(PAGE_SIZE as usize) {
                memory.give(Gva(page), content.next().unwrap_or_default(), segment.rights)?;
            }
        }
        Self::new(program.name, memory, executable.entry)
    }

    /// Makes a process of a few bytes of code, which start it.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn from_code(name: &'static str, code: &[u8]) -> Result<Self, LoadError> {
        let mut memory = Memory::new()?;
        for (page, content) in (0..MAX_PAGES).zip(code.chunks(PAGE_SIZE as usize)) {
            memory.give(Gva(IMAGE + page * PAGE_SIZE), content, Rights::READ_EXECUTE)?;
        }
        Self::new(name, memory, Gva(IMAGE))
    }

    fn new(name: &'static str, mut memory: Memory, entry: Gva) -> Result<Self, LoadError> {
        memory.give(Gva(STACK_END - PAGE_SIZE), &[], Rights::READ_WRITE)?;
        let registers = Registers::starting_at(entry);
        Ok(Self {
            name,
            id: 0,
            argument: 0,
            registers,
            memory,
            handles: alloc::vec![Handle::Console],
            wait: None,
            is_patient: false,
            slices: None,
        })
    }

    /// Gives the program a number that it can ask for.
    #[must_use]
    pub fn with_argument(mut self, argument: u64) -> Self {
        self.argument = argument;
        self
    }

    /// Ends it when it has used up so many slices of time, [`TIME_SLICE`](super::TIME_SLICE) each. Where there is no timer
    /// there are no slices.
    #[must_use]
    pub fn with_time_limit(mut self, slices: u64) -> Self {
        self.slices = Some(slices);
        self
    }

    /// Gives it an end of a pipe to write to, under the next handle: 1, 2, ….
    #[must_use]
    pub fn with_sender(mut self, sender: Sender) -> Self {
        self.handles.push(Handle::Sender(sender));
        self
    }

    /// Gives it an end of a pipe to read from, under the next handle.
    #[must_use]
    pub fn with_receiver(mut self, receiver: Receiver) -> Self {
        self.handles.push(Handle::Receiver(receiver));
        self
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its number; 0 before it was started.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn argument(&self) -> u64 {
        self.argument
    }

    pub(super) fn set_id(&mut self, id: u64) {
        self.id = id;
    }

    pub(super) fn has_time_limit(&self) -> bool {
        self.slices.is_some()
    }

    /// Takes a slice off what it may use. Whether there is anything left.
    pub(super) fn use_slice(&mut self) -> bool {
        self.slices = self.slices.map(|slices| slices.saturating_sub(1));
        self.slices != Some(0)
    }

    /// At its next turn its call may have the whole machine wait: nobody else could use it.
    pub(super) fn be_patient(&mut self) {
        self.is_patient = true;
    }

    pub(super) fn is_patient(&self) -> bool {
        self.is_patient
    }

    pub(super) fn wait(&self) -> Option<Wait> {
        self.wait
    }

    /// Memory and handles, for the calls.
    pub(super) fn parts(&mut self) -> (&mut Memory, &mut Vec<Handle>) {
        (&mut self.memory, &mut self.handles)
    }

    /// Runs it to its end, as the only process there is: nobody takes turns with it, and no timer is needed. What it would
    /// wait for does not come, except time.
    pub fn run_alone(&mut self) -> End {
        loop {
            match self.turn(|| false) {
                Turn::Ended(end) => return end,
                Turn::Waits | Turn::StillWaits => match self.wait {
                    Some(Wait::Typing) => self.is_patient = true,
                    Some(wait @ (Wait::Bytes | Wait::Room)) => return End::Stuck(wait),
                    Some(Wait::Until(_)) | None => core::hint::spin_loop(),
                },
                Turn::Paused | Turn::TimeUp => {}
            }
        }
    }

    /// Lets it run until it gives way, waits or ends, or its time is up: enter, look why it came back, answer, repeat.
    pub(super) fn turn(&mut self, is_time_up: impl Fn() -> bool) -> Turn {
        if self.wait.is_some() {
            match self.answer() {
                None => {}
                Some(Turn::Waits) => return Turn::StillWaits,
                Some(turn) => return turn,
            }
        }
        loop {
            let turn = match self.run(&is_time_up) {
                Arrival::Call => self.answer(),
                Arrival::Interrupt => None,
                Arrival::Fault if self.has_touched_its_stack() => None,
                Arrival::Fault => Some(Turn::Ended(End::Died(Box::new(self.registers.0)))),
            };
            if let Some(turn) = turn.or_else(|| is_time_up().then_some(Turn::TimeUp)) {
                return turn;
            }
        }
    }

    /// When the sleep ends that it is in, or that starts now and ends at `end`.
    pub(super) fn wakes_at(&self, end: impl FnOnce() -> u64) -> u64 {
        match self.wait {
            Some(Wait::Until(time)) => time,
            _ => end(),
        }
    }

    /// Answers the call that its registers make. `None`: it goes on.
    fn answer(&mut self) -> Option<Turn> {
        let ExceptionFrame { rax, rdi, rsi, rdx, .. } = self.registers.0;
        let outcome = calls::handle(self, rax, [rdi, rsi, rdx]);
        (self.wait, self.is_patient) = (None, false);
        let answer = match outcome {
            Outcome::Answer(answer) => answer,
            Outcome::Yield => {
                self.registers.0.rax = abi::encode(Ok(0));
                return Some(Turn::Paused);
            }
            Outcome::Wait(wait) => {
                self.wait = Some(wait);
                return Some(Turn::Waits);
            }
            Outcome::Exit(code) => return Some(Turn::Ended(End::Exited(code))),
        };
        self.registers.0.rax = abi::encode(answer);
        None
    }

    /// Runs it in ring 3 until something arrives.
    fn run(&mut self, is_time_up: impl Fn() -> bool) -> Arrival {
        setup::start();
        self.memory.activate();
        // An alarm that came after the last look would not come again, and the process would run for ever.
        let interrupts = flags::disable_interrupts();
        let may_run = !is_time_up();
        if may_run {
            self.registers.enter();
        }
        flags::restore_interrupts(interrupts);
        if !may_run {
            return Arrival::Interrupt;
        }
        let memory = &self.memory;
        doors::arrival(&mut self.registers.0, setup::lstar(), |gva| memory.code(Gva(gva)))
    }

    /// Whether it faulted at a page of its stack that it had not touched before, and has now.
    fn has_touched_its_stack(&mut self) -> bool {
        const PRESENT: u64 = 1 << 0;
        match self.registers.0.fault_address() {
            Some(gva) if self.registers.0.error_code & PRESENT == 0 => self.memory.touch_stack(gva),
            _ => false,
        }
    }
}

/// The registers of a program, as it left them or will find them.
#[derive(Clone, Debug)]
struct Registers(ExceptionFrame);

/// The flags that a program may have as it likes: arithmetic, TF, DF, AC and ID (Intel SDM vol. 1, figure 3-8).
const OWN_FLAGS: u64 = 0xDD5 | 1 << 18 | 1 << 21;
/// IF, as nothing in ring 3 turns interrupts off, and the bit that is always 1.
const SET_FLAGS: u64 = 1 << 9 | 1 << 1;

impl Registers {
    /// All are 0 but RIP and RSP, which is as a call would leave it (System V AMD64 ABI, 3.2.2).
    fn starting_at(entry: Gva) -> Self {
        const RETURN_ADDRESS_SIZE: u64 = 8;
        let rsp = STACK_END - RETURN_ADDRESS_SIZE;
        Self(ExceptionFrame { rip: entry.0, rsp, ..ExceptionFrame::read(&mut || 0) })
    }

    /// Lets the program run. Interrupts are off, before and afterwards.
    fn enter(&mut self) {
        let frame = &mut self.0;
        frame.cs = gdt::USER_CODE.into();
        frame.ss = gdt::USER_DATA.into();
        frame.rflags = frame.rflags & OWN_FLAGS | SET_FLAGS;
        // SAFETY: Segments and flags are set above. RIP is in user space: it was at the start, and `arrival` calls it a
        // fault when a call or an interrupt left it elsewhere. Every space maps the kernel. Processes run on one CPU,
        // and `run` has turned interrupts off.
        unsafe { enter::enter(frame) };
    }
}
