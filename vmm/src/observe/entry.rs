//! `Entry`: all that is known of one exit, in a fixed number of bytes.

use std::fmt;

use serde::Serialize;
use shared_abi::hypercall::{Answer, Hypercall, Registers};
use shared_abi::{Gpa, Gva};

use crate::cpus::VcpuId;
use crate::exit::Exit;
use crate::observe::callers::Callers;

/// The kinds of exits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A read from a port.
    PioIn,
    /// A write to a port, other than a hypercall.
    PioOut,
    /// A hypercall.
    Hypercall,
    /// A read where no RAM is.
    MmioRead,
    /// A write where no RAM is.
    MmioWrite,
    /// HLT.
    Halt,
    /// A signal, which is no doing of the guest.
    #[default]
    Interrupted,
    /// The end of an interrupt that the I/O APIC must know of.
    IoapicEoi,
    /// The CPU has shut down.
    TripleFault,
    /// A debugger's stop.
    Debug,
    /// KVM cannot emulate an instruction.
    EmulationFailure,
    /// KVM gives up.
    InternalError,
    /// The CPU refuses the guest's state.
    EntryFailed,
    /// KVM_RUN failed.
    RunFailed,
    /// A number that this VMM does not know.
    Unknown,
}

impl Kind {
    /// All kinds, in their order, with the words that name them.
    pub const ALL: [(Self, &str); 15] = [
        (Self::PioIn, "pio-in"),
        (Self::PioOut, "pio-out"),
        (Self::Hypercall, "hypercall"),
        (Self::MmioRead, "mmio-read"),
        (Self::MmioWrite, "mmio-write"),
        (Self::Halt, "halt"),
        (Self::Interrupted, "interrupted"),
        (Self::IoapicEoi, "ioapic-eoi"),
        (Self::TripleFault, "triple-fault"),
        (Self::Debug, "debug"),
        (Self::EmulationFailure, "emulation-failure"),
        (Self::InternalError, "internal-error"),
        (Self::EntryFailed, "entry-failed"),
        (Self::RunFailed, "run-failed"),
        (Self::Unknown, "unknown"),
    ];

    fn of(exit: &Exit<'_>) -> Self {
        match exit {
            Exit::PioIn { .. } => Self::PioIn,
            Exit::PioOut { .. } => Self::PioOut,
            Exit::Hypercall => Self::Hypercall,
            Exit::MmioRead { .. } => Self::MmioRead,
            Exit::MmioWrite { .. } => Self::MmioWrite,
            Exit::Halt => Self::Halt,
            Exit::Interrupted => Self::Interrupted,
            Exit::IoapicEoi { .. } => Self::IoapicEoi,
            Exit::TripleFault => Self::TripleFault,
            Exit::Debug(_) => Self::Debug,
            Exit::EmulationFailure(_) => Self::EmulationFailure,
            Exit::InternalError { .. } => Self::InternalError,
            Exit::EntryFailed { .. } => Self::EntryFailed,
            Exit::RunFailed(_) => Self::RunFailed,
            Exit::Unknown(_) => Self::Unknown,
        }
    }

    /// The word that names it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.get(self as usize).map_or("unknown", |(_, word)| word)
    }
}

/// What the guest turned to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// Nothing that has a number.
    #[default]
    Nothing,
    /// A port.
    Port(u16),
    /// An address without RAM, or with RAM that KVM has not been told of yet.
    Memory(Gpa),
    /// The hypercall of this number.
    Call(u64),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.pad("-"),
            Self::Port(port) => f.pad(&format!("{port:#x}")),
            Self::Memory(gpa) => f.pad(&gpa.to_string()),
            Self::Call(number) => f.pad(&number.to_string()),
        }
    }
}

/// Where an exit came from and what it was: exits that agree in this are added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Site {
    /// The kind.
    pub kind: Kind,
    /// What the guest turned to.
    pub target: Target,
    /// RIP as KVM told it, at the instruction or behind it; `None` when it did not.
    pub rip: Option<Gva>,
    /// Where the functions around it return to.
    pub callers: Callers,
}

/// One exit. It has no heap memory, so making one costs no allocation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entry {
    /// Its number, from 1; those of all vCPUs are numbered as they come.
    pub number: u64,
    /// Who left the guest.
    pub vcpu: VcpuId,
    /// Where it came from and what it was.
    pub site: Site,
    /// Bytes per access.
    pub size: u8,
    /// Bytes in all: of every access of a `rep`; for a hypercall, those that its answer counts.
    pub bytes: u64,
    /// The first bytes that the guest wrote. What it read is not known when it leaves.
    pub data: Data,
    /// A hypercall's registers and its answer, once there is one.
    pub call: Option<(Registers, Option<Answer>)>,
    /// When the guest was entered, in nanoseconds since the first entry.
    pub entered_ns: u64,
    /// Nanoseconds in the guest before it, with what KVM needs for entry and exit.
    pub guest_ns: u64,
    /// Nanoseconds in the host, until the guest was entered again or the run was over.
    pub host_ns: u64,
}

impl Entry {
    /// When the guest left.
    #[must_use]
    pub fn left_ns(&self) -> u64 {
        self.entered_ns + self.guest_ns
    }

    /// When the host was done with it.
    #[must_use]
    pub fn end_ns(&self) -> u64 {
        self.left_ns() + self.host_ns
    }

    /// Takes over what `exit` says.
    pub(super) fn describe(&mut self, exit: &Exit<'_>) {
        self.site.kind = Kind::of(exit);
        self.call = None;
        let (target, size, length, written): (_, _, _, &[u8]) = match exit {
            Exit::PioIn { port, size, data } => (Target::Port(*port), *size, data.len(), &[]),
            Exit::PioOut { port, size, data } => (Target::Port(*port), *size, data.len(), data),
            Exit::MmioRead { gpa, data } => (Target::Memory(*gpa), data.len() as u8, data.len(), &[]),
            Exit::MmioWrite { gpa, data } => (Target::Memory(*gpa), data.len() as u8, data.len(), data),
            _ => (Target::Nothing, 0, 0, &[]),
        };
        (self.site.target, self.size, self.bytes) = (target, size, length as u64);
        self.data = Data::first_of(written);
    }

    /// Takes over what is known of a hypercall when it was answered.
    pub(super) fn describe_call(&mut self, call: &Registers, answer: Option<Answer>) {
        self.site.target = Target::Call(call.number);
        self.call = Some((*call, answer));
        self.bytes = match (Hypercall::decode(call), answer) {
            (
                Ok(
                    Hypercall::ConsoleWrite { .. }
                    | Hypercall::ConsoleRead { .. }
                    | Hypercall::RandomBytes { .. }
                    | Hypercall::FileRead { .. }
                    | Hypercall::FileWrite { .. }
                    | Hypercall::DirectoryRead { .. },
                ),
                Some(Ok(bytes)),
            ) => bytes,
            _ => 0,
        };
    }
}

/// The first bytes of what a guest wrote, at most 8.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Data {
    bytes: [u8; 8],
    count: u8,
}

impl Data {
    fn first_of(written: &[u8]) -> Self {
        let mut own = Self::default();
        for (to, from) in own.bytes.iter_mut().zip(written) {
            *to = *from;
            own.count += 1;
        }
        own
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.count)).unwrap_or_default()
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Data {
    /// Hexadecimal, then as text where it is some: `68 'h'`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text: Vec<_> = self.as_slice().iter().map(|byte| format!("{byte:02x}")).collect();
        let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t');
        if !self.as_slice().is_empty() && self.as_slice().iter().all(is_text) {
            text.push(format!("'{}'", self.as_slice().escape_ascii()));
        }
        f.pad(&text.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_word_that_json_has() {
        for (index, (kind, word)) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{word}");
            assert_eq!(kind.word(), word);
            assert_eq!(serde_json::to_value(kind).expect("a word"), word);
        }
    }

    #[test]
    fn written_bytes_are_shown_as_numbers_and_as_text() {
        assert_eq!(Data::first_of(b"h").to_string(), "68 'h'");
        assert_eq!(Data::first_of(b"\n").to_string(), "0a '\\n'");
        assert_eq!(Data::first_of(&[0xCD, 0xAB]).to_string(), "cd ab");
        assert_eq!(Data::first_of(&[0; 4096]).as_slice().len(), 8, "the first of many");
    }

    #[test]
    fn a_calls_bytes_are_those_that_were_transferred() {
        let call = Hypercall::ConsoleWrite { text_gva: Gva(0x1000), text_size: u64::MAX }.encode();
        let mut entry = Entry::default();
        entry.describe_call(&call, Some(Err(shared_abi::HypercallError::TooLarge)));
        assert_eq!(
            (entry.site.target, entry.bytes),
            (Target::Call(2), 0),
            "what a guest claims is not counted"
        );
        entry.describe_call(&call, Some(Ok(21)));
        assert_eq!(entry.bytes, 21);
    }
}
