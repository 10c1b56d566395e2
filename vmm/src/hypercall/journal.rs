//! `Journal`: what the host has answered, call by call, so that a run can be repeated.
//!
//! Some KVMs reset a vCPU that shuts down, and nothing is left to tell why it did. Then the guest is run once more and
//! caught just before ([`debug::repeat`](crate::debug)). What it was told the first time it must be told again: the
//! time, random numbers, what was typed, what files held. So on such a KVM each answer is kept: RAX, RDI, and the bytes
//! that the host wrote for it. A repeated run gets its answers from here, and the host does nothing for it twice.
//!
//! Only answers are kept, and a hypercall costs far more than keeping one. A journal that grows too large is dropped.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::vec;

use shared_abi::hypercall::{Answer, FileStatus, Hypercall, Registers, Translation};

use crate::error::Result as HostResult;
use crate::guest_space::{GuestBuffer, GuestSpace};

/// What the host has answered, or will.
#[derive(Debug, Default)]
pub(crate) enum Journal {
    /// Nobody will ask.
    #[default]
    Off,
    /// Answers are kept.
    Recording {
        /// So far.
        entries: Vec<Entry>,
        /// Bytes of memory that they take.
        size: usize,
    },
    /// There were too many to keep.
    TooLarge,
    /// Answers are given again.
    Replaying(vec::IntoIter<Entry>),
    /// A guest asked something else than the first time.
    Diverged,
}

/// A call and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The call's registers, hashed.
    asked: u64,
    rax: u64,
    rdi: u64,
    /// What was written to guest memory, and where.
    written: Option<(GuestBuffer, Box<[u8]>)>,
}

/// What a journal may take, in bytes.
const MAX_SIZE: usize = 32 << 20;

/// What is to be done about a call.
pub(crate) enum Replay {
    /// Answer it as always.
    Live,
    /// Answer RAX and RDI.
    Answer(u64, u64),
    /// It is not the call of the first time.
    Diverged,
}

impl Journal {
    /// A journal to record in.
    pub(crate) fn recording() -> Self {
        Self::Recording { entries: Vec::new(), size: 0 }
    }

    /// The answers, to be given again; or why there are none.
    pub(crate) fn replay(&self) -> Result<Self, &'static str> {
        match self {
            Self::Recording { entries, .. } => Ok(Self::Replaying(entries.clone().into_iter())),
            Self::TooLarge => Err("the guest has made more hypercalls than are kept"),
            _ => Err("no journal was kept of what the guest was told"),
        }
    }

    /// Whether a guest asked something else than the first time.
    pub(crate) fn has_diverged(&self) -> bool {
        matches!(self, Self::Diverged)
    }

    /// Keeps an answer; `space` is asked for only when memory was written.
    pub(crate) fn record<'a>(
        &mut self,
        registers: &Registers,
        answer: &Answer,
        (rax, rdi): (u64, u64),
        space: impl FnOnce() -> HostResult<GuestSpace<'a>>,
    ) {
        let Self::Recording { entries, size } = self else { return };
        let written = output(registers, answer).and_then(|buffer| {
            let bytes = space().ok()?.read(buffer, MAX_SIZE as u64).ok()?;
            Some((buffer, bytes.into_boxed_slice()))
        });
        *size += size_of::<Entry>() + written.as_ref().map_or(0, |(_, bytes)| bytes.len());
        entries.push(Entry { asked: hash(registers), rax, rdi, written });
        if *size > MAX_SIZE {
            *self = Self::TooLarge;
        }
    }

    /// Gives an answer again, and writes what belongs to it.
    pub(crate) fn next(&mut self, registers: &Registers, space: &GuestSpace<'_>) -> Replay {
        let Self::Replaying(entries) = self else { return Replay::Live };
        let Some(entry) = entries.next().filter(|entry| entry.asked == hash(registers)) else {
            *self = Self::Diverged;
            return Replay::Diverged;
        };
        // KVM itself must know of a channel. Its text goes where all of a repeated run's goes: nowhere.
        if matches!(Hypercall::decode(registers), Ok(Hypercall::OpenChannel { .. })) {
            return Replay::Live;
        }
        if let Some((buffer, bytes)) = &entry.written
            && space.write(buffer.gva, bytes).is_err()
        {
            *self = Self::Diverged;
            return Replay::Diverged;
        }
        Replay::Answer(entry.rax, entry.rdi)
    }

    /// Whether calls are answered from here.
    pub(crate) fn is_replaying(&self) -> bool {
        matches!(self, Self::Replaying(_))
    }
}

fn hash(registers: &Registers) -> u64 {
    let mut hasher = DefaultHasher::new();
    registers.number.hash(&mut hasher);
    registers.arguments.hash(&mut hasher);
    hasher.finish()
}

/// Where the host wrote for a call that it has answered so. A call that lets the host write must stand here.
fn output(registers: &Registers, answer: &Answer) -> Option<GuestBuffer> {
    let answered = *answer.as_ref().ok()?;
    let buffer = |gva, size| Some(GuestBuffer { gva, size });
    match Hypercall::decode(registers).ok()? {
        Hypercall::ConsoleRead { buffer_gva, .. }
        | Hypercall::RandomBytes { buffer_gva, .. }
        | Hypercall::FileRead { buffer_gva, .. }
        | Hypercall::DirectoryRead { buffer_gva, .. } => buffer(buffer_gva, answered),
        Hypercall::Arguments { buffer_gva, buffer_size } => buffer(buffer_gva, buffer_size.min(answered)),
        Hypercall::Translate { answer_gva, .. } => buffer(answer_gva, size_of::<Translation>() as u64),
        Hypercall::FileStat { answer_gva, .. } => buffer(answer_gva, size_of::<FileStatus>() as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use shared_abi::Gva;

    use super::*;
    use crate::config::Backing;
    use crate::memory::GuestMemory;

    fn random_bytes(gva: u64, size: u64) -> Registers {
        Hypercall::RandomBytes { buffer_gva: Gva(gva), buffer_size: size }.encode()
    }

    #[test]
    fn an_answer_is_given_again_with_what_was_written() {
        let memory = GuestMemory::allocate("2M".parse().expect("a size"), Backing::default()).expect("RAM");
        let space = GuestSpace::new(&memory, None);
        space.write(Gva(0x1000), b"chance").expect("RAM");
        let mut journal = Journal::recording();
        journal.record(&random_bytes(0x1000, 6), &Ok(6), (0, 6), || Ok(space));

        space.write(Gva(0x1000), b"other!").expect("RAM");
        let mut again = journal.replay().expect("it was recorded");
        assert!(matches!(again.next(&random_bytes(0x1000, 6), &space), Replay::Answer(0, 6)));
        assert_eq!(space.read(GuestBuffer { gva: Gva(0x1000), size: 6 }, 6).expect("RAM"), b"chance");
        assert!(
            matches!(again.next(&random_bytes(0x1000, 6), &space), Replay::Diverged),
            "there was one only"
        );
    }

    #[test]
    fn another_call_than_the_first_time_is_noticed() {
        let memory = GuestMemory::allocate("2M".parse().expect("a size"), Backing::default()).expect("RAM");
        let space = GuestSpace::new(&memory, None);
        let mut journal = Journal::recording();
        journal.record(&random_bytes(0x1000, 6), &Ok(6), (0, 6), || Ok(space));
        let mut again = journal.replay().expect("it was recorded");
        assert!(matches!(again.next(&random_bytes(0x1000, 7), &space), Replay::Diverged));
        assert!(again.has_diverged());
    }

    #[test]
    fn a_journal_that_grows_too_large_is_dropped() {
        let memory = GuestMemory::allocate("64M".parse().expect("a size"), Backing::default()).expect("RAM");
        let space = GuestSpace::new(&memory, None);
        let mut journal = Journal::recording();
        let size = 16 << 20;
        for _ in 0..3 {
            journal.record(&random_bytes(0, size), &Ok(size), (0, size), || Ok(space));
        }
        assert!(journal.replay().is_err_and(|why| why.contains("more hypercalls")));
    }
}
