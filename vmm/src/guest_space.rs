//! `GuestSpace`: guest memory as the guest's own instructions see it, by virtual address.
//!
//! A pointer in a hypercall is a claim. It may be null, wrap around, run into a page that is not there, or name memory
//! that the guest itself may not write. So every transfer first walks the guest's page tables over the whole range,
//! with the rights it needs, and only then touches a byte.

use shared_abi::{Gpa, Gva, HypercallError};

use crate::config::PageSize;
use crate::error::Result as HostResult;
use crate::memory::GuestMemory;
use crate::page_walk::{Mapping, PageTables, Walker};
use crate::vcpu::Vcpu;

/// What a transfer needs of the guest's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The host reads: the pages are mapped.
    Read,
    /// The host writes: the pages are mapped writable, on every level.
    Write,
}

/// A range of virtual addresses that a guest named. Having one says nothing about what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestBuffer {
    /// First byte.
    pub gva: Gva,
    /// Size in bytes.
    pub size: u64,
}

/// A part of a buffer that is contiguous in physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte.
    pub gpa: Gpa,
    /// Size in bytes, never 0.
    pub size: u64,
}

/// The guest's virtual memory, with the page tables that a vCPU uses now.
#[derive(Clone, Copy, Debug)]
pub struct GuestSpace<'a> {
    memory: &'a GuestMemory,
    /// `None` while paging is off and every address is physical.
    page_tables: Option<PageTables>,
}

impl<'a> GuestSpace<'a> {
    /// The space that `vcpu` sees.
    ///
    /// # Errors
    /// When its registers cannot be read.
    pub fn of(vcpu: &Vcpu, memory: &'a GuestMemory) -> HostResult<Self> {
        Ok(Self { memory, page_tables: vcpu.page_tables()? })
    }

    /// The space behind these tables; `None` while paging is off.
    #[must_use]
    pub fn new(memory: &'a GuestMemory, page_tables: Option<PageTables>) -> Self {
        Self { memory, page_tables }
    }

    /// The space behind these tables, or those of 64-bit mode that a CR3 points to.
    #[must_use]
    pub fn with_page_tables(memory: &'a GuestMemory, tables: impl Into<PageTables>) -> Self {
        Self { memory, page_tables: Some(tables.into()) }
    }

    /// Translates one address; `None` when it is not mapped.
    #[must_use]
    pub fn translate(&self, gva: Gva) -> Option<Mapping> {
        self.translate_with(&mut self.walker(), gva)
    }

    fn walker(&self) -> Option<Walker> {
        self.page_tables.map(Walker::new)
    }

    fn translate_with(&self, walker: &mut Option<Walker>, gva: Gva) -> Option<Mapping> {
        match walker {
            Some(walker) => walker.walk(gva, |gpa| self.memory.read_u64(gpa).ok()).ok(),
            None => Some(Mapping {
                gpa: Gpa(gva.0),
                page_size: PageSize::Size4K,
                writable: true,
                executable: true,
                user: true,
            }),
        }
    }

    /// Checks that all of `buffer` is RAM that can be accessed so.
    ///
    /// # Errors
    /// `BadAddress`, or `TooLarge` when it is larger than RAM, which only aliases can be.
    pub fn check(&self, buffer: GuestBuffer, access: Access) -> Result<(), HypercallError> {
        self.checked_pieces(buffer, access).map(drop)
    }

    /// Checks all of `buffer` and gives its pieces. Most buffers are one piece, and then they are walked once.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn checked_pieces(&self, buffer: GuestBuffer, access: Access) -> Result<Pieces<'a>, HypercallError> {
        if buffer.size > self.memory.size().bytes() {
            return Err(HypercallError::TooLarge);
        }
        let mut pieces = self.pieces(buffer, access);
        match pieces.next_piece()? {
            None => Ok(pieces),
            Some(only) if pieces.left == 0 && pieces.ahead.is_none() => {
                pieces.ahead = Some(only);
                Ok(pieces)
            }
            Some(_) => {
                pieces.try_for_each(|piece| piece.map(drop))?;
                Ok(self.pieces(buffer, access))
            }
        }
    }

    /// The physical pieces of `buffer`, in order; an error ends them.
    pub fn pieces(&self, buffer: GuestBuffer, access: Access) -> Pieces<'a> {
        Pieces {
            space: *self,
            walker: self.walker(),
            next: buffer.gva,
            left: buffer.size,
            access,
            ahead: None,
        }
    }

    /// Copies the bytes of `buffer` out of the guest.
    ///
    /// # Errors
    /// As [`check`](Self::check), and `TooLarge` above `limit` bytes.
    pub fn read(&self, buffer: GuestBuffer, limit: u64) -> Result<Vec<u8>, HypercallError> {
        if buffer.size > limit {
            return Err(HypercallError::TooLarge);
        }
        let pieces = self.checked_pieces(buffer, Access::Read)?;
        let mut bytes = vec![0; buffer.size as usize];
        let mut rest = bytes.as_mut_slice();
        for piece in pieces {
            let piece = piece?;
            let (part, behind) = rest.split_at_mut(piece.size as usize);
            self.memory.read(piece.gpa, part).map_err(|_| HypercallError::BadAddress)?;
            rest = behind;
        }
        Ok(bytes)
    }

    /// Copies text out of the guest.
    ///
    /// # Errors
    /// As [`read`](Self::read), and `BadText` when it is not UTF-8.
    pub fn read_text(&self, buffer: GuestBuffer, limit: u64) -> Result<String, HypercallError> {
        String::from_utf8(self.read(buffer, limit)?).map_err(|_| HypercallError::BadText)
    }

    /// Copies `bytes` into the guest, all or none.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn write(&self, gva: Gva, bytes: &[u8]) -> Result<(), HypercallError> {
        let buffer = GuestBuffer { gva, size: bytes.len() as u64 };
        let mut rest = bytes;
        for piece in self.checked_pieces(buffer, Access::Write)? {
            let piece = piece?;
            let (part, behind) = rest.split_at(piece.size as usize);
            self.memory.write(piece.gpa, part).map_err(|_| HypercallError::BadAddress)?;
            rest = behind;
        }
        Ok(())
    }

    /// The RAM behind the tables.
    #[must_use]
    pub fn memory(&self) -> &'a GuestMemory {
        self.memory
    }
}

/// Walks a buffer page by page and joins what is contiguous.
#[derive(Debug)]
pub struct Pieces<'a> {
    space: GuestSpace<'a>,
    walker: Option<Walker>,
    next: Gva,
    left: u64,
    access: Access,
    /// The page behind the last piece, which did not continue it.
    ahead: Option<Piece>,
}

impl Pieces<'_> {
    /// The next page's part of the buffer. It may lie outside RAM.
    fn next_page(&mut self) -> Result<Option<Piece>, HypercallError> {
        if let Some(piece) = self.ahead.take() {
            return Ok(Some(piece));
        }
        if self.left == 0 {
            return Ok(None);
        }
        let gva = self.next;
        let mapping = self.space.translate_with(&mut self.walker, gva).ok_or(HypercallError::BadAddress)?;
        if self.access == Access::Write && !mapping.writable {
            return Err(HypercallError::BadAddress);
        }
        let page_left = mapping.page_size.bytes() - (gva.0 & (mapping.page_size.bytes() - 1));
        let piece = Piece { gpa: mapping.gpa, size: self.left.min(page_left) };
        self.left -= piece.size;
        match gva.checked_add(piece.size) {
            Some(next) => self.next = next,
            // Behind the last address comes nothing.
            None if self.left == 0 => {}
            None => return Err(HypercallError::BadAddress),
        }
        Ok(Some(piece))
    }

    /// The longest contiguous run of pages from here, all of it RAM.
    fn next_piece(&mut self) -> Result<Option<Piece>, HypercallError> {
        let Some(mut piece) = self.next_page()? else { return Ok(None) };
        while let Some(page) = self.next_page()? {
            if piece.gpa.checked_add(piece.size) != Some(page.gpa) {
                self.ahead = Some(page);
                break;
            }
            piece.size += page.size;
        }
        match self.space.memory.check(piece.gpa, piece.size) {
            Ok(()) => Ok(Some(piece)),
            Err(_) => Err(HypercallError::BadAddress),
        }
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece, HypercallError>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.next_piece();
        if piece.is_err() {
            (self.left, self.ahead) = (0, None);
        }
        piece.transpose()
    }
}
