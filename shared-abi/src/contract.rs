//! The contract in writing: what crosses the boundary, as a text that both sides carry.
//!
//! Host and guest are compiled apart. When one was built against an older `shared-abi`, its numbers mean something
//! else, and nothing but a text can tell. Each side's text is derived from the very types it was compiled with: names,
//! types, offsets and sizes of every shared structure, numbers and arguments of every hypercall, error codes, fixed
//! addresses and ports. The guest's lies in its ELF file as a note that is never loaded; the host compares the two
//! before the first instruction, and names the first line that differs.
//!
//! ```text
//! .note.duet ┌ namesz = 5, descsz, type = 1 ┐  System V ABI, "Note Section"
//!            │ "Duet\0" and padding to 8    │
//!            │ lines "key: value"           │  `vmm contract` prints the host's
//!            └──────────────────────────────┘
//! ```
//!
//! Guest side: `guest-kernel/src/boot.rs`. Host side: `vmm/src/boot/contract.rs`.

use crate::boot_info::{BootInfo, RamRegion};
use crate::channel::{Channel, Ring};
use crate::exception::{ExceptionFrame, Vector};
use crate::guest_test::{Ending, TestRecord};
use crate::hypercall::{
    ExitKind, FileStatus, Hypercall, HypercallError, LogLevel, OpenFlags, SeekOrigin, Translation,
};
use crate::{interrupts, layout, needs, ports};

/// The contract's text, built at compile time.
#[derive(Clone, Copy)]
pub struct Text {
    bytes: [u8; Text::MAX],
    length: usize,
}

impl Text {
    /// Room for the text. When it is full, compiling says so.
    const MAX: usize = 16384;

    const fn new() -> Self {
        Self { bytes: [0; Self::MAX], length: 0 }
    }

    /// `BootInfo.ram: [RamRegion; 2] at 16, 32 bytes`
    pub(crate) const fn field(
        self,
        owner: &str,
        name: &str,
        type_name: &str,
        offset: usize,
        size: usize,
    ) -> Self {
        let text = self.key(owner, name).push(type_name).push(" at ").push_number(offset as u64);
        text.push(", ").push_number(size as u64).push(" bytes\n")
    }

    /// `Hypercall.ConsoleWrite: 2 (text_gva: Gva) (text_size: u64)`
    pub(crate) const fn call(self, name: &str, number: u64, arguments: &str) -> Self {
        self.key("Hypercall", name).push_number(number).push(arguments).push("\n")
    }

    /// `ports.EXIT: 244`
    pub(crate) const fn number(self, owner: &str, name: &str, number: u64) -> Self {
        self.key(owner, name).push_number(number).push("\n")
    }

    const fn key(self, owner: &str, name: &str) -> Self {
        self.push(owner).push(".").push(name).push(": ")
    }

    const fn push(mut self, text: &str) -> Self {
        let text = text.as_bytes();
        let mut index = 0;
        while index < text.len() {
            self.bytes[self.length] = text[index];
            self.length += 1;
            index += 1;
        }
        self
    }

    const fn push_number(mut self, number: u64) -> Self {
        if number >= 10 {
            self = self.push_number(number / 10);
        }
        self.bytes[self.length] = b'0' + (number % 10) as u8;
        self.length += 1;
        self
    }
}

/// The whole contract.
const TEXT: Text = {
    let text = RamRegion::describe(BootInfo::describe(Text::new()));
    let text = FileStatus::describe(Translation::describe(text));
    let text = HypercallError::describe(Hypercall::describe(text));
    let text = LogLevel::describe(ExitKind::describe(text));
    let text = OpenFlags::describe(SeekOrigin::describe(text));
    let text = Ring::describe(Channel::describe(text));
    let text = TestRecord::describe(Ending::describe(text));
    let text = ExceptionFrame::describe(Vector::describe(text));
    text.number("ports", "DEBUG_CONSOLE", ports::DEBUG_CONSOLE as u64)
        .number("ports", "EXIT", ports::EXIT as u64)
        .number("ports", "HYPERCALL", ports::HYPERCALL as u64)
        .number("ports", "CONSOLE_COALESCED", ports::CONSOLE_COALESCED as u64)
        .number("ports", "CONSOLE_DOORBELL", ports::CONSOLE_DOORBELL as u64)
        .number("layout", "CONSOLE_MMIO", layout::CONSOLE_MMIO.0)
        .number("layout", "CONSOLE_COALESCED_MMIO", layout::CONSOLE_COALESCED_MMIO.0)
        .number("layout", "BOOT_INFO", layout::BOOT_INFO.0)
        .number("layout", "STACK_END", layout::STACK_END.0)
        .number("layout", "FAULT_STACK_END", layout::FAULT_STACK_END.0)
        .number("layout", "NMI_STACK_END", layout::NMI_STACK_END.0)
        .number("layout", "MACHINE_CHECK_STACK_END", layout::MACHINE_CHECK_STACK_END.0)
        .number("interrupts", "LOCAL_APIC", interrupts::LOCAL_APIC.0)
        .number("interrupts", "IO_APIC", interrupts::IO_APIC.0)
        .number("interrupts", "PINS", interrupts::PINS as u64)
        .number("interrupts", "BUTTON", interrupts::BUTTON as u64)
        .number("interrupts", "CONSOLE_INPUT", interrupts::CONSOLE_INPUT as u64)
        .number("interrupts", "TICK", interrupts::TICK as u64)
        .number("needs", "INTERRUPTS", needs::INTERRUPTS)
        .number("BootInfo", "VERSION", BootInfo::VERSION)
        .number("BootInfo", "MAX_VCPUS", BootInfo::MAX_VCPUS)
};

/// Bytes of the contract's text.
pub const TEXT_SIZE: usize = TEXT.length;

/// The note's name, with its NUL.
pub const NOTE_NAME: [u8; 5] = *b"Duet\0";
/// The note's type.
pub const NOTE_TYPE: u32 = 1;

/// The contract as an ELF note.
#[repr(C, align(4))]
pub struct Note {
    name_size: u32,
    text_size: u32,
    note_type: u32,
    name: [u8; 8],
    text: [u8; TEXT_SIZE.next_multiple_of(4)],
}

impl Note {
    /// The note of this contract.
    pub const THIS: Self = {
        let mut note = Self {
            name_size: NOTE_NAME.len() as u32,
            text_size: TEXT_SIZE as u32,
            note_type: NOTE_TYPE,
            name: [0; 8],
            text: [0; _],
        };
        let mut index = 0;
        while index < NOTE_NAME.len() {
            note.name[index] = NOTE_NAME[index];
            index += 1;
        }
        let mut index = 0;
        while index < TEXT_SIZE {
            note.text[index] = TEXT.bytes[index];
            index += 1;
        }
        note
    };

    /// The contract's text: lines of `key: value`.
    ///
    /// # Panics
    /// Never: it is made of identifiers and numbers.
    #[must_use]
    pub fn text(&self) -> &str {
        let text = self.text.get(..TEXT_SIZE).expect("the text has its own size");
        core::str::from_utf8(text).expect("identifiers and numbers are ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_names_fields_calls_errors_and_ports() {
        let text = Note::THIS.text();
        for line in [
            "BootInfo.magic: u64 at 0, 8 bytes",
            "BootInfo.ram: [RamRegion; 2] at 16, 32 bytes",
            "Hypercall.Exit: 1 (code: u64)",
            "HypercallError.BadAddress: 3",
            "ports.EXIT: 244",
        ] {
            assert!(text.lines().any(|own| own == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn no_key_stands_twice() {
        let text = Note::THIS.text();
        let keys = || text.lines().map(|line| line.split_once(": ").expect("key: value").0);
        for (index, key) in keys().enumerate() {
            assert!(!keys().skip(index + 1).any(|other| other == key), "{key}");
        }
    }
}
