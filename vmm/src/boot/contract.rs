//! Was the guest built against the contract that this VMM knows?
//!
//! Both texts are lines of `key: value` ([`shared_abi::contract`]). Equal texts, the usual case, cost one comparison of
//! bytes. Otherwise the first lines that differ are named with both values. A guest's text is a stranger's: it is
//! bounded, and printed only after control characters are taken out.

use object::read::elf::NoteIterator;
use object::{Endianness, elf::FileHeader64};
use shared_abi::contract::{NOTE_NAME, NOTE_TYPE, Note};

/// What a guest must carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contract {
    /// A note with just our contract; the guest may make hypercalls.
    #[default]
    Required,
    /// Nothing: a foreign guest, which has the ports of console and exit only.
    None,
}

/// What is wrong with a guest's contract.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContractError {
    /// No note.
    #[error(
        "it carries no contract: link it with guest-kernel, or run it as a foreign guest with --no-contract, which has \
         the ports of console (0xe9) and exit (0xf4) only"
    )]
    Missing,
    /// Another contract.
    #[error("it was built against another contract: {}; rebuild it", .0.join(", "))]
    Differs(Vec<String>),
}

/// More differences than this are not listed.
const MAX_DIFFERENCES: usize = 4;

/// Looks for the contract among the bytes of an image's note segments and compares it.
///
/// # Errors
/// [`ContractError`].
pub fn check<'a>(note_segments: impl Iterator<Item = &'a [u8]>) -> Result<(), ContractError> {
    let text = |segment| find_note(segment, NOTE_TYPE);
    let theirs = note_segments.filter_map(text).next().ok_or(ContractError::Missing)?;
    let ours = Note::THIS.text();
    if are_equal(theirs, ours.as_bytes()) {
        return Ok(());
    }
    Err(ContractError::Differs(differences(ours, &String::from_utf8_lossy(theirs))))
}

/// Whether both are the same, many bytes at a time: a C library's `memcmp`, which `==` calls, may look at each.
fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let (pieces, rest) = one.as_chunks::<16>();
    let (other_pieces, other_rest) = other.as_chunks::<16>();
    let word = |piece: &[u8; 16]| u128::from_ne_bytes(*piece);
    pieces.len() == other_pieces.len()
        && pieces.iter().zip(other_pieces).all(|(one, other)| word(one) == word(other))
        && rest == other_rest
}

/// What our note of this type says, if there is one in a segment of notes.
pub(crate) fn find_note(segment: &[u8], note_type: u32) -> Option<&[u8]> {
    const ALIGNMENT: u64 = 4;
    let mut notes =
        NoteIterator::<FileHeader64<Endianness>>::new(Endianness::Little, ALIGNMENT, segment).ok()?;
    // A damaged note ends the search.
    while let Ok(Some(note)) = notes.next() {
        let name = NOTE_NAME.strip_suffix(&[0]).unwrap_or(&NOTE_NAME);
        if note.name() == name && note.n_type(Endianness::Little).0 == note_type {
            return Some(note.desc());
        }
    }
    None
}

/// The keys whose values differ, each with both values; of many, the first few.
fn differences(ours: &str, theirs: &str) -> Vec<String> {
    let value = |text: &str, key: &str| {
        text.lines().filter_map(parts).find(|(own, _)| *own == key).map(|(_, value)| value.to_owned())
    };
    let mut differences = Vec::new();
    for (key, host) in ours.lines().filter_map(parts) {
        match value(theirs, key) {
            Some(guest) if guest == host => {}
            Some(guest) => differences.push(format!("`{key}`: host {host}, guest {}", printable(&guest))),
            None => differences.push(format!("`{key}`: host {host}, guest has none")),
        }
    }
    for (key, guest) in theirs.lines().filter_map(parts) {
        if value(ours, key).is_none() {
            differences.push(format!("`{}`: host has none, guest {}", printable(key), printable(guest)));
        }
    }
    if differences.is_empty() {
        differences.push("the same lines in another order, or lines that are none".to_owned());
    }
    let more = differences.len().saturating_sub(MAX_DIFFERENCES);
    if more > 0 {
        differences.truncate(MAX_DIFFERENCES);
        differences.push(format!("and {more} more"));
    }
    differences
}

fn parts(line: &str) -> Option<(&str, &str)> {
    line.split_once(": ")
}

/// At most 80 characters, without control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment with one note of `text`.
    fn segment(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [NOTE_NAME.len() as u32, text.len() as u32, NOTE_TYPE] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(NOTE_NAME);
        bytes.extend([0; 3]);
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn checked(text: &str) -> Result<(), ContractError> {
        check(std::iter::once(segment(text).as_slice()))
    }

    #[test]
    fn the_own_contract_is_accepted() {
        assert_eq!(checked(Note::THIS.text()), Ok(()));
    }

    #[test]
    fn a_field_of_another_type_is_named_with_both() {
        let theirs =
            Note::THIS.text().replace("BootInfo.version: u64 at 8, 8", "BootInfo.version: u32 at 8, 4");
        let error = checked(&theirs).expect_err("it differs").to_string();
        let expected = "`BootInfo.version`: host u64 at 8, 8 bytes, guest u32 at 8, 4 bytes";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_call_that_one_side_lacks_is_named() {
        let fewer = Note::THIS.text().replace("Hypercall.ExitCount: 4\n", "");
        let error = checked(&fewer).expect_err("it differs").to_string();
        assert!(error.contains("`Hypercall.ExitCount`: host 4, guest has none"), "{error}");

        let more = format!("{}Hypercall.Mine: 77 (x: u64)\n", Note::THIS.text());
        let error = checked(&more).expect_err("it differs").to_string();
        assert!(error.contains("`Hypercall.Mine`: host has none, guest 77 (x: u64)"), "{error}");
    }

    #[test]
    fn what_is_no_note_is_no_contract() {
        assert_eq!(check(std::iter::empty()), Err(ContractError::Missing));
        for bytes in [&b""[..], b"x", &[0xFF; 64], &[0; 64]] {
            assert_eq!(check(std::iter::once(bytes)), Err(ContractError::Missing), "{bytes:?}");
        }
    }

    #[test]
    fn a_strangers_text_cannot_write_control_characters_or_pages() {
        let error = checked(&format!("\u{1b}[31m{}: \u{7}\n", "x".repeat(10_000))).expect_err("it differs");
        let error = error.to_string();
        assert!(!error.contains(char::is_control) && error.len() < 2000, "{error}");
    }
}
