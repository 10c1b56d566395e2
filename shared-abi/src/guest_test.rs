//! In-guest tests: how the host finds those of an image without running it.
//!
//! `#[guest_test]` puts a [`TestRecord`] beside each test, and the linker collects them. A note, as the
//! [contract](crate::contract) is one, says where they lie. So the host follows it through the file:
//!
//! ```text
//! image file
//!   note "Duet", type 2   TestNote: from, to ──┐
//!   read-only segment     TestRecord, TestRecord, … ◄┘   one a test
//!                              └► name, file, …          text, by address and size
//! ```
//!
//! To run one, the host boots the image with two arguments: the test's name, and its place in the list, which saves the
//! guest a search. The test function returns, and the guest ends with exit code 0; or the test ends the guest itself.
//!
//! Guest side: `guest-kernel/src/testing.rs`. Host side: `vmm/src/guest_tests/mod.rs`.

use core::mem::offset_of;

use crate::addr::Gva;
use crate::contract::{NOTE_NAME, Text};
use crate::define::shared_enum;

/// The type of the note that says where the tests are; the contract's is 1.
pub const NOTE_TYPE: u32 = 2;

/// No limit, in a field that holds one.
pub const UNLIMITED: u64 = u64::MAX;
/// Any will do, in a field that tells which.
pub const ANY: u64 = u64::MAX;

/// One test. To the host its pointers are numbers; the guest, where the linker fills them in, has real ones.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct TestRecord<Pointer = Gva, Function = Gva> {
    /// What runs.
    pub run: Function,
    /// Its path without the crate, such as `console::tests::a_line_is_one_exit`.
    pub name: Pointer,
    /// Size of that.
    pub name_size: u64,
    /// The source file, as the compiler was told of it.
    pub file: Pointer,
    /// Size of that.
    pub file_size: u64,
    /// The line in it.
    pub line: u64,
    /// How the guest must end: an [`Ending`].
    pub ending: u64,
    /// With which code, where the ending has one.
    pub code: u64,
    /// By which exception, where the ending is one: the number of a [`Vector`](crate::Vector), or [`ANY`].
    pub vector: u64,
    /// By an access to which address, where the exception is a page fault: a GVA, or [`ANY`].
    pub address: u64,
    /// What the console must hold; empty when all will do.
    pub prints: Pointer,
    /// Size of that.
    pub prints_size: u64,
    /// The most exits that it may cause, beside the one that ends it; or [`UNLIMITED`].
    pub max_exits: u64,
    /// How long it may take; [`UNLIMITED`] leaves that to whoever runs it.
    pub timeout_ms: u64,
    /// The most instructions that it executes, or [`UNLIMITED`].
    pub max_instructions: u64,
    /// Runs only when asked for: 0 or 1.
    pub ignored: u64,
    /// How many vCPUs its machine has.
    pub cpus: u64,
}

shared_enum! {
    /// How a test must end.
    pub enum Ending {
        /// With an exit code: 0 unless told otherwise, [`PANICKED`](crate::exit_code::PANICKED) for a panic.
        Exit = 0,
        /// By an exception that nothing handles.
        Fault = 1,
    }
}

impl TestRecord {
    /// Words of a record.
    pub const WORDS: usize = 17;
    /// Bytes of a record.
    pub const SIZE: usize = size_of::<Self>();

    /// The record that these words are.
    #[must_use]
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        let [run, name, name_size, file, file_size, line, ending, code, vector, address, rest @ ..] = words;
        let [prints, prints_size, max_exits, timeout_ms, max_instructions, ignored, cpus] = rest;
        Self {
            run: Gva(run),
            name: Gva(name),
            name_size,
            file: Gva(file),
            file_size,
            line,
            ending,
            code,
            vector,
            address,
            prints: Gva(prints),
            prints_size,
            max_exits,
            timeout_ms,
            max_instructions,
            ignored,
            cpus,
        }
    }

    /// Adds the fields to the contract.
    pub(crate) const fn describe(text: Text) -> Text {
        macro_rules! words {
            ($($field:ident)*) => {
                text$( .field("TestRecord", stringify!($field), "word", offset_of!(TestRecord, $field), 8) )*
            };
        }
        words!(
            run name name_size file file_size line ending code vector address prints prints_size max_exits timeout_ms
            max_instructions ignored cpus
        )
    }
}

const _: () = assert!(TestRecord::SIZE == TestRecord::WORDS * size_of::<u64>());

/// The note that says where the records are.
///
/// Notes are made of 32-bit words, so its pointers are aligned as such.
#[repr(C, packed(4))]
#[derive(Debug)]
pub struct TestNote<Pointer = Gva> {
    name_size: u32,
    description_size: u32,
    note_type: u32,
    name: [u8; 8],
    /// The first record.
    pub from: Pointer,
    /// Behind the last record.
    pub to: Pointer,
}

impl<Pointer> TestNote<Pointer> {
    /// A note of the records between these addresses.
    #[must_use]
    pub const fn new(from: Pointer, to: Pointer) -> Self {
        let [d, u, e, t, nul] = NOTE_NAME;
        Self {
            name_size: NOTE_NAME.len() as u32,
            description_size: 2 * size_of::<Pointer>() as u32,
            note_type: NOTE_TYPE,
            name: [d, u, e, t, nul, 0, 0, 0],
            from,
            to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_record_are_its_fields_in_order() {
        let mut next = 0;
        let record = TestRecord::from_words([(); TestRecord::WORDS].map(|()| {
            next += 1;
            next - 1
        }));
        assert_eq!(record.run.0 * 8, offset_of!(TestRecord, run) as u64);
        assert_eq!(record.line * 8, offset_of!(TestRecord, line) as u64);
        assert_eq!(record.vector * 8, offset_of!(TestRecord, vector) as u64);
        assert_eq!(record.prints.0 * 8, offset_of!(TestRecord, prints) as u64);
        assert_eq!(record.cpus * 8, offset_of!(TestRecord, cpus) as u64);
    }
}
