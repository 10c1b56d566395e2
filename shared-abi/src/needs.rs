//! Needs: what a guest asks of its machine, by being linked.
//!
//! Interrupt controllers cost every start some time, and change what HLT means; most guests want none. So a guest gets
//! them only when it asks, and it asks by using them: each function that relies on one refers to a note, and the linker
//! leaves the note out of programs where nothing does. No program says what it needs, and none can forget to.
//!
//! ```text
//! image file
//!   note "Duet", type 3   NeedsNote: a word, each bit of it a need
//! ```
//!
//! Guest side: `guest-kernel/src/interrupts.rs` has the note, `guest-kernel/link.ld` its place. Host side:
//! `KernelImage::needs` in `vmm/src/boot/kernel.rs`.

use crate::contract::NOTE_NAME;

/// The type of the note; the contract's is 1, that of the tests is 2.
pub const NOTE_TYPE: u32 = 3;

/// Interrupt controllers: a local APIC for each CPU, and an I/O APIC ([`interrupts`](crate::interrupts)).
pub const INTERRUPTS: u64 = 1 << 0;

/// The note, as it lies in the image.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug)]
pub struct NeedsNote {
    name_size: u32,
    description_size: u32,
    note_type: u32,
    name: [u8; 8],
    needs: u64,
}

impl NeedsNote {
    /// The note that asks for these.
    #[must_use]
    pub const fn new(needs: u64) -> Self {
        let [d, u, e, t, nul] = NOTE_NAME;
        Self {
            name_size: NOTE_NAME.len() as u32,
            description_size: size_of::<u64>() as u32,
            note_type: NOTE_TYPE,
            name: [d, u, e, t, nul, 0, 0, 0],
            needs,
        }
    }
}
