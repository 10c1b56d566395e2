//! A program, and how it gets into the memory of a process.

use core::fmt;

use shared_abi::Gva;
use shared_abi::addr::PAGE_SIZE;

use super::elf::{Executable, ImageError};
use super::memory::{IMAGE, MAX_PAGES, Memory, MemoryError};
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

/// Puts the segments of an ELF file into new memory; gives it, and where the program starts.
pub(super) fn load_elf(image: &[u8]) -> Result<(Memory, Gva), LoadError> {
    let executable = Executable::parse(image)?;
    let mut memory = Memory::new()?;
    for segment in executable.segments() {
        let segment = segment?;
        let mut content = segment.content.chunks(PAGE_SIZE as usize);
        for page in (segment.start.0..segment.end.0).step_by(PAGE_SIZE as usize) {
            memory.give(Gva(page), content.next().unwrap_or_default(), segment.rights)?;
        }
    }
    Ok((memory, executable.entry))
}

/// Puts bare code into new memory, where images start.
pub(super) fn load_code(code: &[u8]) -> Result<(Memory, Gva), LoadError> {
    let mut memory = Memory::new()?;
    for (page, content) in (0..MAX_PAGES).zip(code.chunks(PAGE_SIZE as usize)) {
        memory.give(Gva(IMAGE + page * PAGE_SIZE), content, Rights::READ_EXECUTE)?;
    }
    Ok((memory, Gva(IMAGE)))
}
