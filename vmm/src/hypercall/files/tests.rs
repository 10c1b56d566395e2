//! The calls themselves, without a machine: guest memory, page tables and a real directory.

use std::fs;
use std::os::unix::fs::symlink;

use shared_abi::Gpa;
use tempfile::TempDir;

use super::*;
use crate::config::Backing;
use crate::memory::GuestMemory;

/// The flags that most tests open with.
const READ_WRITE: OpenFlags = OpenFlags::READ.and(OpenFlags::WRITE);
const MAKE: OpenFlags = READ_WRITE.and(OpenFlags::CREATE);

/// A guest of 4 MiB of which the first two are mapped, and a directory that it may use.
struct Guest {
    memory: GuestMemory,
    files: Files,
    directory: TempDir,
}

impl Guest {
    const MAPPED: u64 = 2 << 20;
    const TABLES: u64 = 3 << 20;
    const BUFFER: Gva = Gva(0x1000);

    fn with(limits: Limits, mode: GrantMode) -> Self {
        let memory = GuestMemory::allocate("4M".parse().expect("a size"), Backing::default()).expect("RAM");
        // PML4, PDPT, and a page directory whose only entry maps 2 MiB: present, writable, large.
        for (index, word) in [Self::TABLES + 0x1003, Self::TABLES + 0x2003, 0x83].into_iter().enumerate() {
            let gpa = Gpa(Self::TABLES + 0x1000 * index as u64);
            memory.write(gpa, &u64::to_le_bytes(word)).expect("RAM");
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().to_owned();
        let files = Files::new(Some(Grant { path, mode, limits })).expect("a directory that is there");
        Self { memory, files, directory }
    }

    fn new() -> Self {
        Self::with(Limits::default(), GrantMode::ReadWrite)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts bytes where a call finds them.
    fn buffer(&self, bytes: &[u8]) -> GuestBuffer {
        self.memory.write(Gpa(Self::BUFFER.0), bytes).expect("RAM");
        GuestBuffer { gva: Self::BUFFER, size: bytes.len() as u64 }
    }

    fn open(&mut self, path: &str, flags: OpenFlags) -> Answer {
        let path = self.buffer(path.as_bytes());
        self.files.open(&GuestSpace::with_page_tables(&self.memory, Self::TABLES), path, flags)
    }

    fn write(&mut self, handle: u64, bytes: &[u8]) -> Answer {
        let buffer = self.buffer(bytes);
        let space = GuestSpace::with_page_tables(&self.memory, Self::TABLES);
        self.files.write(&space, handle as u32, buffer)
    }

    fn read(&mut self, handle: u64, buffer: GuestBuffer) -> Answer {
        let space = GuestSpace::with_page_tables(&self.memory, Self::TABLES);
        self.files.read(&space, handle as u32, buffer)
    }

    fn list(&mut self, handle: u64, size: u64) -> Result<Vec<u8>, HypercallError> {
        let space = GuestSpace::with_page_tables(&self.memory, Self::TABLES);
        let buffer = GuestBuffer { gva: Self::BUFFER, size };
        let count = self.files.read_directory(&space, handle as u32, buffer)?;
        let mut names = vec![0; count as usize];
        self.memory.read(Gpa(Self::BUFFER.0), &mut names).expect("RAM");
        Ok(names)
    }

    fn remove(&mut self, path: &str) -> Answer {
        let path = self.buffer(path.as_bytes());
        self.files.remove(&GuestSpace::with_page_tables(&self.memory, Self::TABLES), path)
    }

    fn stat(&mut self, path: &str) -> Result<[u64; 3], HypercallError> {
        let path = self.buffer(path.as_bytes());
        let space = GuestSpace::with_page_tables(&self.memory, Self::TABLES);
        self.files.stat(&space, path, Gva(0x8000))?;
        Ok([0, 8, 16].map(|offset| self.memory.read_u64(Gpa(0x8000 + offset)).expect("RAM")))
    }
}

#[test]
fn without_a_grant_every_call_says_so() {
    let guest = Guest::new();
    let space = GuestSpace::with_page_tables(&guest.memory, Guest::TABLES);
    let buffer = guest.buffer(b"x");
    let mut files = Files::new(None).expect("nothing to open");
    for answer in [
        files.open(&space, buffer, OpenFlags::READ),
        files.read(&space, 3, buffer),
        files.write(&space, 3, buffer),
        files.seek(3, 0, SeekOrigin::Start),
        files.close(3),
        files.stat(&space, buffer, Guest::BUFFER),
        files.remove(&space, buffer),
        files.read_directory(&space, 3, buffer),
    ] {
        assert_eq!(answer, Err(HypercallError::NotGranted));
    }
}

#[test]
fn a_grant_that_is_no_directory_is_the_hosts_error_and_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "").expect("writable");
    for path in [file, directory.path().join("nothing")] {
        let grant = Grant { path: path.clone(), mode: GrantMode::ReadOnly, limits: Limits::default() };
        let error = Files::new(Some(grant)).expect_err("no directory").to_string();
        assert!(error.contains(path.to_str().expect("UTF-8")), "{error}");
    }
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let mut guest = Guest::new();
    let none = OpenFlags::default();
    for flags in [
        none,
        OpenFlags::CREATE,
        OpenFlags::CREATE_NEW,
        OpenFlags::TRUNCATE,
        OpenFlags::READ.and(OpenFlags::CREATE),
        OpenFlags::READ.and(OpenFlags::CREATE_NEW),
        OpenFlags::READ.and(OpenFlags::TRUNCATE),
        OpenFlags::APPEND.and(OpenFlags::TRUNCATE),
        OpenFlags::WRITE.and(OpenFlags::APPEND).and(OpenFlags::TRUNCATE),
        OpenFlags::DIRECTORY.and(OpenFlags::READ),
        OpenFlags::DIRECTORY.and(OpenFlags::CREATE),
    ] {
        assert_eq!(guest.open("x", flags), Err(HypercallError::BadArgument), "{flags:?}");
    }
    assert!(!guest.path("x").exists());
}

#[test]
fn every_combination_of_flags_is_refused_or_opens() {
    use shared_abi::define::Argument;
    let mut guest = Guest::new();
    for word in 0..128 {
        let flags = OpenFlags::from_word(word).expect("seven flags");
        fs::write(guest.path("x"), "").expect("writable");
        match guest.open("x", flags) {
            Ok(handle) => assert_eq!(guest.files.close(handle as u32), Ok(0)),
            Err(error) => assert!(
                matches!(
                    error,
                    HypercallError::BadArgument
                        | HypercallError::AlreadyExists
                        | HypercallError::NotADirectory
                ),
                "{flags:?}: {error:?}"
            ),
        }
    }
}

#[test]
fn a_read_only_grant_changes_nothing() {
    let mut guest = Guest::with(Limits::default(), GrantMode::ReadOnly);
    fs::write(guest.path("file"), "as it was").expect("writable");

    for flags in [
        OpenFlags::WRITE,
        READ_WRITE,
        MAKE,
        OpenFlags::APPEND,
        OpenFlags::WRITE.and(OpenFlags::TRUNCATE),
        OpenFlags::WRITE.and(OpenFlags::CREATE_NEW),
    ] {
        assert_eq!(guest.open("file", flags), Err(HypercallError::NotGranted), "{flags:?}");
        assert_eq!(guest.open("new", flags), Err(HypercallError::NotGranted), "{flags:?}");
    }
    assert_eq!(guest.remove("file"), Err(HypercallError::NotGranted));
    let handle = guest.open("file", OpenFlags::READ).expect("reading is granted");
    assert_eq!(guest.write(handle, b"x"), Err(HypercallError::BadHandle));

    assert_eq!(fs::read_to_string(guest.path("file")).expect("readable"), "as it was");
    assert!(!guest.path("new").exists());
}

#[test]
fn handles_start_at_3_and_the_smallest_free_one_is_given() {
    let mut guest = Guest::with(Limits { open_files: 3, ..Limits::default() }, GrantMode::ReadWrite);
    for handle in 3..6 {
        assert_eq!(guest.open("x", MAKE), Ok(handle));
    }
    let emptying = MAKE.and(OpenFlags::TRUNCATE);
    guest.write(3, b"kept").expect("room");
    assert_eq!(guest.open("x", emptying), Err(HypercallError::TooManyOpenFiles));
    assert_eq!(fs::read(guest.path("x")).expect("readable"), b"kept", "nothing was emptied");

    assert_eq!(guest.files.close(4), Ok(0));
    assert_eq!(guest.open(".", OpenFlags::DIRECTORY), Ok(4));
    for handle in [0, 1, 2, 6, 64, u32::MAX] {
        assert_eq!(guest.files.close(handle), Err(HypercallError::BadHandle), "{handle}");
    }
    assert_eq!(guest.files.seek(4, 0, SeekOrigin::Start), Err(HypercallError::BadHandle), "a directory");
    assert_eq!(guest.list(3, 300), Err(HypercallError::BadHandle), "a file");
}

#[test]
fn a_handle_is_for_what_it_was_opened_for() {
    let mut guest = Guest::new();
    let writing = guest.open("x", OpenFlags::WRITE.and(OpenFlags::CREATE)).expect("granted");
    let reading = guest.open("x", OpenFlags::READ).expect("granted");
    let buffer = guest.buffer(b"text");
    assert_eq!(guest.read(writing, buffer), Err(HypercallError::BadHandle));
    assert_eq!(guest.write(reading, b"text"), Err(HypercallError::BadHandle));
    assert_eq!(guest.write(reading, b""), Err(HypercallError::BadHandle), "not even nothing");
}

#[test]
fn writing_ends_at_the_limit_exactly() {
    let limits = Limits { written_bytes: 10, ..Limits::default() };
    let mut guest = Guest::with(limits, GrantMode::ReadWrite);
    let handle = guest.open("x", MAKE).expect("granted");
    assert_eq!(guest.write(handle, b"1234"), Ok(4));
    assert_eq!(guest.write(handle, b"56789abc"), Ok(6), "as a full disk does");
    assert_eq!(guest.write(handle, b"b"), Err(HypercallError::NoSpace));
    assert_eq!(guest.write(handle, b""), Ok(0));
    let other = guest.open("y", MAKE).expect("files cost no bytes");
    assert_eq!(guest.write(other, b"b"), Err(HypercallError::NoSpace), "the limit is the machine's");
    assert_eq!(fs::read(guest.path("x")).expect("readable"), b"123456789a");
}

#[test]
fn a_gap_is_paid_like_bytes_and_none_beyond_the_limit_is_made() {
    let limits = Limits { written_bytes: 100, ..Limits::default() };
    let mut guest = Guest::with(limits, GrantMode::ReadWrite);
    let handle = guest.open("x", MAKE).expect("granted");
    for far in [100, 1 << 40] {
        assert_eq!(guest.files.seek(handle as u32, far, SeekOrigin::Start), Ok(far as u64));
        assert_eq!(guest.write(handle, b"!"), Err(HypercallError::NoSpace), "{far}");
        assert_eq!(fs::metadata(guest.path("x")).expect("there").len(), 0);
    }
    guest.files.seek(handle as u32, 98, SeekOrigin::Start).expect("any position");
    assert_eq!(guest.write(handle, b"!!!"), Ok(2));
    assert_eq!(guest.write(handle, b"!"), Err(HypercallError::NoSpace));
    assert_eq!(fs::metadata(guest.path("x")).expect("there").len(), 100);
}

#[test]
fn a_file_larger_than_the_limit_can_be_changed_where_it_is() {
    let limits = Limits { written_bytes: 6, ..Limits::default() };
    let mut guest = Guest::with(limits, GrantMode::ReadWrite);
    fs::write(guest.path("large"), [b'.'; 1000]).expect("writable");
    let handle = guest.open("large", READ_WRITE).expect("granted");
    guest.files.seek(handle as u32, -2, SeekOrigin::End).expect("inside");
    assert_eq!(guest.write(handle, b"ab"), Ok(2));
    let appending = guest.open("large", OpenFlags::APPEND).expect("granted");
    assert_eq!(guest.write(appending, b"cd"), Ok(2), "no gap: it starts at the end");
    assert!(fs::read(guest.path("large")).expect("readable").ends_with(b".abcd"));
}

#[test]
fn no_more_files_are_made_than_may_be() {
    let mut guest = Guest::with(Limits { made_files: 2, ..Limits::default() }, GrantMode::ReadWrite);
    for name in ["a", "b", "a"] {
        let handle = guest.open(name, MAKE).expect("two files, one of them twice");
        guest.files.close(handle as u32).expect("open");
    }
    assert_eq!(guest.open("c", MAKE), Err(HypercallError::NoSpace));
    guest.remove("a").expect("there");
    assert_eq!(guest.open("a", MAKE), Err(HypercallError::NoSpace), "made in all");
    assert!(guest.open("b", MAKE).is_ok());
}

#[test]
fn positions_that_cannot_be_are_refused() {
    let mut guest = Guest::new();
    let handle = guest.open("x", MAKE).expect("granted") as u32;
    for (offset, origin) in [
        (-1, SeekOrigin::Start),
        (i64::MIN, SeekOrigin::Start),
        (-1, SeekOrigin::Current),
        (-1, SeekOrigin::End),
        (i64::MIN, SeekOrigin::End),
    ] {
        assert_eq!(guest.files.seek(handle, offset, origin), Err(HypercallError::BadArgument), "{offset}");
    }
}

#[test]
fn only_what_is_all_ram_is_transferred() {
    let mut guest = Guest::new();
    fs::write(guest.path("x"), [7; 8192]).expect("writable");
    let handle = guest.open("x", READ_WRITE).expect("granted");
    let end = Guest::MAPPED;
    for (gva, size, error) in [
        (end - 4096, 4097, HypercallError::BadAddress),
        (end, 1, HypercallError::BadAddress),
        (u64::MAX, 2, HypercallError::BadAddress),
        (u64::MAX - 4095, 8192, HypercallError::BadAddress),
        (1 << 47, 1, HypercallError::BadAddress),
        (0x1000, u64::MAX, HypercallError::TooLarge),
        (0x1000, (4 << 20) + 1, HypercallError::TooLarge),
    ] {
        let buffer = GuestBuffer { gva: Gva(gva), size };
        assert_eq!(guest.read(handle, buffer), Err(error), "{buffer:?}");
        let space = GuestSpace::with_page_tables(&guest.memory, Guest::TABLES);
        assert_eq!(guest.files.write(&space, handle as u32, buffer), Err(error), "{buffer:?}");
    }
    assert_eq!(guest.files.seek(handle as u32, 0, SeekOrigin::Current), Ok(0), "nothing has moved");
    let last_page = GuestBuffer { gva: Gva(end - 4096), size: 4096 };
    assert_eq!(guest.read(handle, last_page), Ok(4096));
    assert_eq!(guest.memory.read_u64(Gpa(end - 8)), Ok(0x0707_0707_0707_0707));
}

#[test]
fn names_come_in_as_many_calls_as_they_need_and_none_is_lost() {
    let mut guest = Guest::new();
    let mut expected: Vec<String> = (0..100).map(|number| format!("{number:0>250}")).collect();
    for name in &expected {
        fs::write(guest.path(name), "").expect("writable");
    }
    fs::create_dir(guest.path("folder")).expect("writable");
    expected.push("folder/".to_owned());
    let handle = guest.open(".", OpenFlags::DIRECTORY).expect("granted");
    assert_eq!(guest.list(handle, 257), Err(HypercallError::BadArgument));

    let mut names = Vec::new();
    loop {
        let bytes = guest.list(handle, 600).expect("room for two");
        if bytes.is_empty() {
            break;
        }
        let text = String::from_utf8(bytes).expect("our names");
        names.extend(text.strip_suffix('\0').expect("a NUL each").split('\0').map(str::to_owned));
    }

    names.sort();
    assert_eq!(names, expected);
    assert_eq!(guest.list(handle, 600), Ok(Vec::new()), "still at the end");
}

#[test]
fn a_name_that_is_not_text_is_given_as_it_is() {
    use std::os::unix::ffi::OsStrExt;
    let mut guest = Guest::new();
    let name = std::ffi::OsStr::from_bytes(b"\xFF\n");
    fs::write(guest.directory.path().join(name), "").expect("a file system that takes any bytes");
    let handle = guest.open(".", OpenFlags::DIRECTORY).expect("granted");
    assert_eq!(guest.list(handle, 258), Ok(b"\xFF\n\0".to_vec()));
}

#[test]
fn stat_follows_links_inside_and_tells_size_kind_and_time() {
    let mut guest = Guest::new();
    fs::create_dir(guest.path("folder")).expect("writable");
    fs::write(guest.path("folder/file"), "four").expect("writable");
    symlink("folder/file", guest.path("link")).expect("writable");
    let modified = fs::metadata(guest.path("folder/file")).and_then(|found| found.modified());
    let modified = modified.expect("there").duration_since(std::time::UNIX_EPOCH).expect("after 1970");

    let [size, is_directory, modified_ns] = guest.stat("link").expect("a link inside");
    assert_eq!((size, is_directory, u128::from(modified_ns)), (4, 0, modified.as_nanos()));
    assert_eq!(guest.stat("folder").map(|[_, is_directory, _]| is_directory), Ok(1));
}

#[test]
fn what_is_no_file_is_neither_opened_nor_described() {
    let mut guest = Guest::new();
    let _socket = std::os::unix::net::UnixListener::bind(guest.path("socket")).expect("writable");
    assert_eq!(guest.open("socket", READ_WRITE), Err(HypercallError::NotPermitted));
    assert_eq!(guest.stat("socket"), Err(HypercallError::NotPermitted));
    fs::create_dir(guest.path("folder")).expect("writable");
    for flags in [OpenFlags::READ, OpenFlags::WRITE, MAKE] {
        assert_eq!(guest.open("folder", flags), Err(HypercallError::IsADirectory), "{flags:?}");
    }
    for path in ["folder", "folder/", "."] {
        assert_eq!(guest.remove(path), Err(HypercallError::IsADirectory), "{path}");
    }
    fs::write(guest.path("file"), "").expect("writable");
    assert_eq!(guest.open("file", OpenFlags::DIRECTORY), Err(HypercallError::NotADirectory));
    assert_eq!(guest.open("file/x", OpenFlags::READ), Err(HypercallError::NotADirectory));
    assert_eq!(guest.open("file/", OpenFlags::READ), Err(HypercallError::NotADirectory));
}

#[test]
fn paths_that_are_no_paths_are_refused() {
    let mut guest = Guest::new();
    let long = "x".repeat(256);
    let longest = "./".repeat(2047) + "./";
    for (path, error) in [
        ("", HypercallError::BadText),
        ("a\0b", HypercallError::BadArgument),
        (&long, HypercallError::TooLarge),
        (&longest, HypercallError::TooLarge),
        (&"x".repeat(4097), HypercallError::TooLarge),
    ] {
        assert_eq!(guest.open(path, MAKE), Err(error), "{path}");
        assert_eq!(guest.stat(path), Err(error), "{path}");
        assert_eq!(guest.remove(path), Err(error), "{path}");
    }
    let not_text = guest.buffer(b"\xFF");
    let space = GuestSpace::with_page_tables(&guest.memory, Guest::TABLES);
    assert_eq!(guest.files.open(&space, not_text, MAKE), Err(HypercallError::BadText));
}
