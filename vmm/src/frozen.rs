//! `FrozenRam`: guest RAM that changes no more, for any number of machines to start from.
//!
//! It lies in a file in memory (memfd_create(2)), sealed so that nobody can write to it. Pages of zeros are holes. A machine
//! that starts from it maps the file privately ([`GuestMemory::of_frozen`]): it takes no copy and no time, and all
//! machines share each page until one of them writes to it.
//!
//! ```text
//! FrozenRam   │ p0 │ p1 │ hole │ p3 │        one file, sealed
//!                ▲    ▲           ▲
//! machine 1   │ ·  │ p1'│      │ ·  │        MAP_PRIVATE: p1' is its own, since it wrote there
//! machine 2   │ ·  │ ·  │      │ p3'│
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, OnceLock};

use shared_abi::Gpa;
use shared_abi::addr::PAGE_SIZE;

use crate::config::MemorySize;
use crate::error::{Error, Result};
use crate::memory::GuestMemory;
use crate::touched::{self, Extent};

/// RAM that changes no more.
#[derive(Debug)]
pub(crate) struct FrozenRam {
    file: File,
    /// The file as memory that nobody writes to: where pages are copied from.
    view: GuestMemory,
    /// What is no hole, lowest first.
    pages: Vec<Extent>,
    /// Tells of the pages of this process; opened when somebody first asks.
    pagemap: OnceLock<Option<File>>,
}

impl FrozenRam {
    /// Copies what `memory` holds now. Nobody writes to it meanwhile.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn copy(memory: &GuestMemory) -> Result<Arc<Self>> {
        let mut thaw = Thaw::new(memory.size())?;
        let base = memory.frozen();
        let shared = base.iter().flat_map(|base| base.pages.iter().copied());
        let mut extents: Vec<_> = shared.chain(touched::extents(memory, 0)).collect();
        extents.sort_by_key(|extent| extent.start);
        let mut done = Gpa(0);
        for Extent { start, end } in extents {
            let mut gpa = start.max(done);
            let mut page = [0; PAGE_SIZE as usize];
            while gpa < end {
                memory.read(gpa, &mut page).map_err(|outside| thaw.failed(io::Error::other(outside)))?;
                thaw.write(gpa, &page)?;
                gpa = Gpa(gpa.0 + PAGE_SIZE);
            }
            done = done.max(end);
        }
        thaw.freeze()
    }

    /// Size of all RAM.
    pub(crate) fn size(&self) -> MemorySize {
        self.view.size()
    }

    /// The pages that are not all zeros, lowest first.
    pub(crate) fn pages(&self) -> &[Extent] {
        &self.pages
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Its bytes.
    pub(crate) fn view(&self) -> &GuestMemory {
        &self.view
    }

    /// What tells of the pages of this process.
    pub(crate) fn pagemap(&self) -> Option<&File> {
        self.pagemap.get_or_init(|| touched::pagemap().ok()).as_ref()
    }
}

/// Frozen RAM in the making.
#[derive(Debug)]
pub(crate) struct Thaw {
    file: File,
    view: GuestMemory,
    pages: Vec<Extent>,
}

impl Thaw {
    /// RAM of zeros.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn new(size: MemorySize) -> Result<Self> {
        let made = make_file().and_then(|file| file.set_len(size.bytes()).map(|()| file));
        let file = made.map_err(|source| failed(size, source))?;
        let view = GuestMemory::map(&file, size)?;
        Ok(Self { file, view, pages: Vec::new() })
    }

    /// Puts a page at `gpa`, behind all others. One of zeros takes no room.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn write(&mut self, gpa: Gpa, page: &[u8; PAGE_SIZE as usize]) -> Result<()> {
        if *page == [0; _] {
            return Ok(());
        }
        let offset = self.view.offset(gpa).ok_or_else(|| self.failed(io::ErrorKind::InvalidInput.into()))?;
        self.file.write_all_at(page, offset).map_err(|source| self.failed(source))?;
        let end = Gpa(gpa.0 + PAGE_SIZE);
        match self.pages.last_mut().filter(|last| last.end == gpa) {
            Some(last) => last.end = end,
            None => self.pages.push(Extent { start: gpa, end }),
        }
        Ok(())
    }

    /// Nothing changes from now on.
    ///
    /// # Errors
    /// [`Error::Memory`].
    pub(crate) fn freeze(self) -> Result<Arc<FrozenRam>> {
        let size = self.view.size();
        seal(&self.file).map_err(|source| failed(size, source))?;
        let Self { file, view, pages } = self;
        Ok(Arc::new(FrozenRam { file, view, pages, pagemap: OnceLock::new() }))
    }

    fn failed(&self, source: io::Error) -> Error {
        failed(self.view.size(), source)
    }
}

fn failed(size: MemorySize, source: io::Error) -> Error {
    Error::Memory { action: "keep a copy of", size, source }
}

/// A file in memory that has no name.
fn make_file() -> io::Result<File> {
    // SAFETY: memfd_create reads the name, which ends with a NUL, and gives a new descriptor or -1.
    let fd =
        unsafe { libc::memfd_create(c"guest-ram".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: The descriptor is new, so nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Nobody may change the file any more, whoever gets hold of it.
fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: The call takes two numbers and touches no memory.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Backing;

    #[test]
    fn machines_share_what_is_frozen_until_they_write_and_can_go_back() {
        let memory = GuestMemory::allocate("4M".parse().expect("a size"), Backing::default()).expect("RAM");
        memory.write(Gpa(0x1FFE), b"both pages").expect("RAM");
        let frozen = FrozenRam::copy(&memory).expect("a copy");
        assert_eq!(frozen.pages(), [Extent { start: Gpa(0x1000), end: Gpa(0x3000) }]);

        let (one, two) = (GuestMemory::of_frozen(&frozen), GuestMemory::of_frozen(&frozen));
        let (one, two) = (one.expect("a mapping"), two.expect("a mapping"));
        one.write(Gpa(0x2000), b"mine").expect("RAM");
        one.write(Gpa(0x8000), b"mine").expect("RAM");

        let read = |memory: &GuestMemory, gpa| {
            let mut bytes = [0; 4];
            memory.read(Gpa(gpa), &mut bytes).expect("RAM");
            bytes
        };
        assert_eq!((read(&one, 0x2000), read(&two, 0x2000)), (*b"mine", *b"th p"));
        one.revert(&frozen).expect("it can go back");
        assert_eq!((read(&one, 0x2000), read(&one, 0x8000)), (*b"th p", [0; 4]));
    }

    #[test]
    fn a_copy_of_a_machine_that_was_frozen_before_has_what_it_shares_and_what_is_its_own() {
        let memory = GuestMemory::allocate("4M".parse().expect("a size"), Backing::default()).expect("RAM");
        memory.write(Gpa(0x1000), b"old").expect("RAM");
        memory.write(Gpa(0x5000), b"gone").expect("RAM");
        memory.become_frozen(&FrozenRam::copy(&memory).expect("a copy")).expect("a mapping");
        memory.write(Gpa(0x3000), b"new").expect("RAM");
        memory.write(Gpa(0x5000), &[0; 4]).expect("RAM");

        let again = FrozenRam::copy(&memory).expect("a copy");

        let page = |start| Extent { start: Gpa(start), end: Gpa(start + 0x1000) };
        assert_eq!(again.pages(), [page(0x1000), page(0x3000)]);
    }

    #[test]
    fn nobody_changes_what_is_frozen() {
        let frozen = Thaw::new("2M".parse().expect("a size")).and_then(Thaw::freeze).expect("a file");
        assert!(frozen.file.write_all_at(b"x", 0).is_err() && frozen.file.set_len(1).is_err());
    }

    #[test]
    fn very_many_pages_are_dropped_instead_of_copied() {
        let frozen = Thaw::new("64M".parse().expect("a size")).and_then(Thaw::freeze).expect("a file");
        let memory = GuestMemory::of_frozen(&frozen).expect("a mapping");
        for page in 0..(40 << 20) / PAGE_SIZE {
            memory.write(Gpa(page * PAGE_SIZE), &[1]).expect("RAM");
        }
        memory.revert(&frozen).expect("it can go back");
        assert_eq!(memory.private_pages(&frozen), []);
        let mut byte = [7];
        memory.read(Gpa(0), &mut byte).expect("RAM");
        assert_eq!(byte, [0]);
    }
}
