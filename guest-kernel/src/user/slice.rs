//! `UserSlice`: memory as a program names it.
//!
//! An address and a size in two registers are an allegation. Having a `UserSlice` tells that they could be memory of a
//! process: all of it lies in user space and is no longer than a call may move. It does not tell that anything is mapped
//! there, for whom, and whether it may be written: that the process's page tables know, and [`UserSlice::readable`] and
//! [`UserSlice::writable`] ask them, page by page, before anybody touches a byte.
//!
//! They give the same bytes by the *kernel's* address: RAM is mapped to itself, and the program's page lies somewhere in
//! it. So no pointer of a program is ever followed, the kernel cannot fault by one, and SMAP need not be lifted.
//!
//! Host side: `vmm/src/guest_space.rs` is the same thing one level up.

use shared_abi::Gva;
use shared_abi::addr::PAGE_SIZE;
use user_library::abi::{MAX_TRANSFER, SystemError};

use super::memory::Memory;
use crate::memory::{USER_END, USER_START};

/// Bytes that a program says are its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserSlice {
    gva: Gva,
    size: u64,
}

/// As many pieces as a transfer has pages at most.
const PIECES: usize = 2;
const _: () = assert!(MAX_TRANSFER <= PAGE_SIZE * (PIECES as u64 - 1));

impl UserSlice {
    /// What a program says, if it is possible. A transfer that is too long is cut: the program asks again for the rest.
    pub(super) fn new(address: u64, size: u64) -> Result<Self, SystemError> {
        let end = address.checked_add(size).ok_or(SystemError::BadAddress)?;
        if address < USER_START || end > USER_END {
            return Err(SystemError::BadAddress);
        }
        Ok(Self { gva: Gva(address), size: size.min(MAX_TRANSFER) })
    }

    /// The bytes, to be read.
    pub(super) fn readable(self, memory: &mut Memory) -> Result<[&[u8]; PIECES], SystemError> {
        let pieces = self.pieces(memory, Access::Read)?;
        // SAFETY: Each piece lies within one page that the process has, which is RAM, mapped at its own address,
        // initialised. It stays the process's while `memory` is borrowed, and the program does not run meanwhile.
        Ok(pieces.map(|Piece { start, size }| unsafe { core::slice::from_raw_parts(start, size) }))
    }

    /// The bytes, to be written.
    pub(super) fn writable(self, memory: &mut Memory) -> Result<[&mut [u8]; PIECES], SystemError> {
        let pieces = self.pieces(memory, Access::Write)?;
        // SAFETY: As for reading. The pieces lie in different pages, each of which the process has alone and at one
        // address: so they do not overlap, and nobody else sees them while `memory` is borrowed.
        Ok(pieces.map(|Piece { start, size }| unsafe { core::slice::from_raw_parts_mut(start, size) }))
    }

    /// Checks all pages, then says where they are.
    fn pieces(self, memory: &mut Memory, access: Access) -> Result<[Piece; PIECES], SystemError> {
        let mut pieces = [Piece::EMPTY; PIECES];
        let (mut gva, mut left) = (self.gva, self.size);
        for piece in &mut pieces {
            if left == 0 {
                break;
            }
            let size = left.min(PAGE_SIZE - gva.page_offset());
            *piece = Piece { start: find(memory, gva, access)?, size: size as usize };
            (gva, left) = (Gva(gva.0 + size), left - size);
        }
        Ok(pieces)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Bytes within a page, by the kernel's address.
#[derive(Clone, Copy)]
struct Piece {
    start: *mut u8,
    size: usize,
}

impl Piece {
    const EMPTY: Self = Self { start: core::ptr::dangling_mut(), size: 0 };
}

/// The kernel's address of a program's byte, if the program itself could access it so.
fn find(memory: &mut Memory, gva: Gva, access: Access) -> Result<*mut u8, SystemError> {
    let mapping = match memory.find(gva) {
        None if memory.touch_stack(gva) => memory.find(gva),
        found => found,
    };
    let mapping = mapping.filter(|mapping| access == Access::Read || mapping.rights.can_write());
    mapping.map(|mapping| mapping.gpa.0 as *mut u8).ok_or(SystemError::BadAddress)
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn what_lies_outside_of_user_space_is_no_slice() {
        for (address, size) in [
            (0, 1),
            (0x10_0000, 8),
            (USER_START - 1, 2),
            (USER_END - 1, 2),
            (USER_END, 1),
            (USER_START, u64::MAX),
            (u64::MAX, 1),
            (u64::MAX, 2),
            (0xFFFF_8000_0000_0000, 8),
        ] {
            assert_eq!(UserSlice::new(address, size), Err(SystemError::BadAddress), "{address:#x} {size}");
        }
    }

    #[test]
    fn a_long_transfer_is_cut() {
        let slice = UserSlice::new(USER_START, 1 << 30).expect("it lies in user space");
        assert_eq!(slice.size, MAX_TRANSFER);
    }
}
