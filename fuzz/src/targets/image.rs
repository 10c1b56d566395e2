//! Images to start from: ELF files made in memory (System V ABI, chapters 4 and 5).

use shared_abi::contract::{NOTE_NAME, NOTE_TYPE, Note};
use shared_abi::layout;

/// `mov al, 0; out 0xF4, al; jmp $`
const CODE: [u8; 6] = [0xB0, 0, 0xE6, shared_abi::ports::EXIT as u8, 0xEB, 0xFE];

/// An image with these bytes where a kernel lies, executed from its first byte, and with these notes.
pub(super) fn image(loaded: &[u8], notes: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 2 * 56;
    let start = layout::KERNEL.0;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // e_type EXEC, e_machine x86-64, e_version
    elf.extend([start, 64, 0].map(u64::to_le_bytes).concat()); // e_entry, e_phoff, e_shoff
    elf.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]); // e_flags, sizes and counts
    let mut header = |kind: u32, flags: u32, offset: u64, address: u64, size: u64| {
        elf.extend([kind, flags].map(u32::to_le_bytes).concat());
        elf.extend([offset, address, address, size, size, 0].map(u64::to_le_bytes).concat());
    };
    let size = loaded.len() as u64;
    header(1, 5, HEADERS, start, size); // PT_LOAD, R+X
    header(4, 0, HEADERS + size, 0, notes.len() as u64); // PT_NOTE
    elf.extend(loaded);
    elf.extend(notes);
    elf
}

/// A note of ours.
pub(super) fn note(kind: u32, text: &[u8]) -> Vec<u8> {
    let sizes = [NOTE_NAME.len() as u32, text.len() as u32, kind];
    let mut note = sizes.map(u32::to_le_bytes).concat();
    note.extend(NOTE_NAME);
    note.resize(note.len().next_multiple_of(4), 0);
    note.extend(text);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// The note with our own contract.
pub(super) fn contract() -> Vec<u8> {
    note(NOTE_TYPE, Note::THIS.text().as_bytes())
}

/// The smallest guest that a machine takes.
pub(super) fn smallest() -> Vec<u8> {
    image(&CODE, &contract())
}
