//! `Callers`: where the functions around an instruction return to, read from the guest's stack.
//!
//! Code with frame pointers keeps a chain on its stack. RBP holds the address of the innermost frame:
//!
//! ```text
//! RBP ──► ┌ the caller's RBP ─────┐   higher addresses: the stack grows down
//!         │ return address        │
//!         ├ …                     │
//!         └ the caller's frame  ◄─┘ … until an RBP of 0
//! ```
//!
//! The guest wrote all of it, so all of it is a claim: the chain is followed through the guest's page tables, upward
//! only, and for [`MAX_CALLERS`] frames at most. What is not RAM ends it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::Ordering;

use shared_abi::addr::PAGE_SIZE;
use shared_abi::{Gpa, Gva};
use vm_memory::{Bytes, VolatileSlice};

use crate::memory::GuestMemory;
use crate::page_walk::Walker;
use crate::vcpu::Place;

/// The most frames of a chain that are looked at. Formatting a nested value in an unoptimised guest takes twenty.
pub const MAX_CALLERS: usize = 32;

/// Return addresses, the innermost first.
#[derive(Clone, Copy)]
pub struct Callers {
    addresses: [u64; MAX_CALLERS],
    count: u8,
}

impl Callers {
    /// The addresses.
    #[must_use]
    pub fn as_slice(&self) -> &[u64] {
        self.addresses.get(..usize::from(self.count)).unwrap_or_default()
    }

    /// Reads the chain that starts at the RBP of `place`. Without page tables there is none.
    pub(super) fn read(&mut self, memory: &GuestMemory, place: Place) {
        self.count = 0;
        let Some(cr3) = place.page_tables else { return };
        let mut stack = Stack { memory, walker: Walker::new(cr3), page: None };
        let mut frame = place.rbp.0;
        for address in &mut self.addresses {
            let Some((next, returns_to)) = stack.frame(frame) else { return };
            if returns_to == 0 {
                return;
            }
            *address = returns_to;
            self.count += 1;
            // A caller's frame lies above: a ring of frames ends here too.
            if next <= frame {
                return;
            }
            frame = next;
        }
    }
}

impl Default for Callers {
    fn default() -> Self {
        Self { addresses: [0; MAX_CALLERS], count: 0 }
    }
}

impl PartialEq for Callers {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Callers {}

impl Hash for Callers {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x?}", self.as_slice())
    }
}

/// A guest's stack, read word by word. Most of its frames share a page, which is translated once.
struct Stack<'a> {
    memory: &'a GuestMemory,
    walker: Walker,
    page: Option<(u64, VolatileSlice<'a>)>,
}

impl Stack<'_> {
    /// The two words of the frame at `gva`.
    fn frame(&mut self, gva: u64) -> Option<(u64, u64)> {
        Some((self.word(gva)?, self.word(gva.checked_add(8)?)?))
    }

    fn word(&mut self, gva: u64) -> Option<u64> {
        let (start, offset) = (gva & !(PAGE_SIZE - 1), gva & (PAGE_SIZE - 1));
        if self.page.as_ref().is_none_or(|(own, _)| *own != start) {
            let mapping = self.walker.walk(Gva(start), |gpa| self.memory.read_u64(gpa).ok()).ok()?;
            let slice = self.memory.slice(Gpa(mapping.gpa.0), PAGE_SIZE).ok()?;
            self.page = Some((start, slice));
        }
        let (_, slice) = self.page.as_ref()?;
        // An address that is no multiple of 8 is refused, and no compiler makes such a frame.
        slice.load::<u64>(offset as usize, Ordering::Relaxed).ok().map(u64::from_le)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Backing;

    const RAM: &str = "2M";
    /// Where the tests put page tables that map the first 2 MiB to themselves.
    const TABLES: u64 = 0x8_0000;

    fn memory() -> GuestMemory {
        let memory = GuestMemory::allocate(RAM.parse().expect("a size"), Backing::default()).expect("RAM");
        for (table, entry) in [(0, (TABLES + 0x1000) | 3), (1, (TABLES + 0x2000) | 3), (2, 0x83)] {
            put(&memory, TABLES + table * 0x1000, entry);
        }
        memory
    }

    fn put(memory: &GuestMemory, gpa: u64, word: u64) {
        memory.write(Gpa(gpa), &word.to_le_bytes()).expect("RAM");
    }

    fn read(memory: &GuestMemory, rbp: u64) -> Callers {
        let mut callers = Callers::default();
        let page_tables = Some(TABLES);
        callers.read(memory, Place { rip: Gva(0), rsp: Gva(0), rbp: Gva(rbp), page_tables });
        callers
    }

    #[test]
    fn a_chain_is_followed_to_its_end() {
        let memory = memory();
        for (frame, next, returns_to) in [(0x1FF0, 0x2008, 0xA), (0x2008, 0x3000, 0xB), (0x3000, 0, 0xC)] {
            put(&memory, frame, next);
            put(&memory, frame + 8, returns_to);
        }
        assert_eq!(read(&memory, 0x1FF0).as_slice(), [0xA, 0xB, 0xC]);
    }

    #[test]
    fn a_hostile_chain_ends_at_once() {
        let memory = memory();
        for (what, rbp, next) in [
            ("itself", 0x1000, 0x1000),
            ("downward", 0x1000, 0x800),
            ("no RAM behind it", 0x1000, 0x1000_0000),
            ("unaligned", 0x1000, 0x1FF4),
            ("non-canonical", 0x1000, 1 << 47),
            ("the last word there is", 0x1000, u64::MAX - 7),
        ] {
            put(&memory, rbp, next);
            put(&memory, rbp + 8, 0xA);
            assert_eq!(read(&memory, rbp).as_slice(), [0xA], "{what}");
        }
        assert!(read(&memory, u64::MAX).as_slice().is_empty());
        assert!(read(&memory, 0).as_slice().is_empty(), "the first page holds zeros: no return address");
    }

    #[test]
    fn a_chain_without_end_is_cut() {
        let memory = memory();
        for index in 0..1000 {
            let frame = 0x1_0000 + index * 16;
            put(&memory, frame, frame + 16);
            put(&memory, frame + 8, index + 1);
        }
        assert_eq!(read(&memory, 0x1_0000).as_slice().len(), MAX_CALLERS);
    }
}
