//! Guest memory as a debugger sees it: by virtual address, through the page tables that the vCPU uses now.
//!
//! A debugger may write where the guest may not: that is how breakpoints get into read-only code. It never sees the
//! breakpoints themselves. Devices have no memory: only RAM is read and written.

use shared_abi::{Gpa, Gva};

use super::breakpoints::Planted;
use crate::guest_space::GuestSpace;

/// A debugger's view of guest memory.
pub(super) struct View<'a> {
    pub(super) space: GuestSpace<'a>,
    pub(super) planted: &'a mut Planted,
}

impl View<'_> {
    /// Reads from `gva` on, as far as there is RAM; says how many bytes there were.
    pub(super) fn read(&self, gva: Gva, bytes: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some((gpa, size)) = self.piece(gva, done, rest.len()) else { break };
            let Some(part) = rest.get_mut(..size) else { break };
            if self.space.memory().read(gpa, part).is_err() {
                break;
            }
            self.planted.hide(gpa, part);
            done += size;
        }
        done
    }

    /// Writes all of `bytes` to `gva`, or nothing when some of it is not RAM.
    pub(super) fn write(&mut self, gva: Gva, bytes: &[u8]) -> bool {
        let mut pieces = Vec::new();
        let mut done = 0;
        while done < bytes.len() {
            let Some((gpa, size)) = self.piece(gva, done, bytes.len() - done) else { return false };
            pieces.push((gpa, done..done + size));
            done += size;
        }
        let memory = self.space.memory();
        pieces.into_iter().all(|(gpa, range)| {
            let part = bytes.get(range).unwrap_or_default();
            memory.write(gpa, part).is_ok() && self.planted.written(memory, gpa, part)
        })
    }

    /// Where the byte `offset` behind `gva` lies, and how many of `size` bytes lie in the same page, all of it RAM.
    fn piece(&self, gva: Gva, offset: usize, size: usize) -> Option<(Gpa, usize)> {
        let gva = gva.checked_add(offset as u64)?;
        let mapping = self.space.translate(gva)?;
        let page = mapping.page_size.bytes();
        let size = (page - (gva.0 & (page - 1))).min(size as u64);
        self.space.memory().check(mapping.gpa, size).ok()?;
        Some((mapping.gpa, size as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Backing;
    use crate::memory::GuestMemory;

    fn memory() -> GuestMemory {
        GuestMemory::allocate("2M".parse().expect("a size"), Backing::default()).expect("address space")
    }

    #[test]
    fn breakpoints_are_neither_read_nor_overwritten() {
        let memory = memory();
        memory.write(Gpa(0x1000), &[1, 2, 3, 4]).expect("RAM");
        let mut planted = Planted::default();
        assert!(planted.add(&memory, Gva(0x1001), Gpa(0x1001)));
        let mut view = View { space: GuestSpace::new(&memory, None), planted: &mut planted };

        let mut bytes = [0; 4];
        assert_eq!(view.read(Gva(0x1000), &mut bytes), 4);
        assert_eq!(bytes, [1, 2, 3, 4]);
        assert!(view.write(Gva(0x1000), &[5, 6, 7]));
        assert_eq!((view.read(Gva(0x1000), &mut bytes), bytes), (4, [5, 6, 7, 4]));
        memory.read(Gpa(0x1000), &mut bytes).expect("RAM");
        assert_eq!(bytes, [5, 0xCC, 7, 4]);

        planted.remove_all(&memory);
        memory.read(Gpa(0x1000), &mut bytes).expect("RAM");
        assert_eq!(bytes, [5, 6, 7, 4]);
    }

    #[test]
    fn what_is_not_ram_ends_a_read_and_forbids_a_write() {
        let memory = memory();
        let end = 2 << 20;
        let mut planted = Planted::default();
        let mut view = View { space: GuestSpace::new(&memory, None), planted: &mut planted };
        let mut bytes = [0xFF; 8];
        assert_eq!(view.read(Gva(end - 4), &mut bytes), 4);
        assert_eq!(bytes, [0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
        assert_eq!(view.read(Gva(u64::MAX), &mut bytes), 0);
        assert!(!view.write(Gva(end - 4), &[1; 8]));
        assert_eq!(view.read(Gva(end - 4), &mut bytes[..4]), 4);
        assert_eq!(bytes[..4], [0; 4], "nothing was written");
    }
}
