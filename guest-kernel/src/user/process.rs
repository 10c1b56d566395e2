//! A process: registers, memory, and what it may reach.
//!
//! That is all there is of it. It has no stack in the kernel: what it waits for is a value ([`Wait`]), and a call that
//! could not be answered is tried again later, as if it had just been made. How it runs is in [`turn`](super::turn).

use alloc::vec::Vec;

use shared_abi::Gva;
use shared_abi::addr::PAGE_SIZE;

use super::end::Wait;
use super::memory::{Memory, STACK_END};
use super::pipe::{Receiver, Sender};
use super::program::{self, LoadError, Program};
use super::registers::Registers;
use crate::memory::paging::Rights;

/// A program that runs, or could.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    /// Its number, once it was started.
    id: u64,
    argument: u64,
    pub(super) registers: Registers,
    pub(super) memory: Memory,
    handles: Vec<Handle>,
    /// What the call that it has made waits for.
    pub(super) wait: Option<Wait>,
    /// Whether its call may have the whole machine wait, at the next turn.
    pub(super) is_patient: bool,
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

impl Process {
    /// Loads a program. It has the console, handle 0, and no argument.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(program: &Program) -> Result<Self, LoadError> {
        Self::from_elf(program.name, program.image)
    }

    /// Loads a program whose file comes from elsewhere: from the host, say.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn from_elf(name: &'static str, image: &[u8]) -> Result<Self, LoadError> {
        let (memory, entry) = program::load_elf(image)?;
        Self::new(name, memory, entry)
    }

    /// Makes a process of a few bytes of code, which start it.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn from_code(name: &'static str, code: &[u8]) -> Result<Self, LoadError> {
        let (memory, entry) = program::load_code(code)?;
        Self::new(name, memory, entry)
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
}
