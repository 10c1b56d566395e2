//! What a guest does with files, and what it should not try.

use guest_kernel::files::{self, Directory, File};
use guest_kernel::hypercall::{Answer, Hypercall, HypercallError, call};
use guest_kernel::io::{self, Read, Seek, SeekFrom, Write};
use guest_kernel::{Gva, arguments, boot_info, println};
use shared_abi::hypercall::{OpenFlags, SeekOrigin};
use shared_abi::layout;

use crate::Deed;

pub(crate) const DEEDS: &[Deed] = &[
    ("files", steps),
    ("files-like-std", || like_std().expect("granted for writing")),
    ("copy-file", || copy(argument(1), argument(2)).expect("granted for writing")),
    ("list-directory", || list(argument(1)).expect("a directory")),
    ("open-often", open_often),
    ("bad-buffers", bad_buffers),
    ("path-with-nul", || println!("{:?}", open(OpenFlags::READ, "file\0"))),
];

fn argument(index: usize) -> &'static str {
    arguments().nth(index).expect("the deed wants more arguments")
}

/// Does each step `VERB=WORDS` and prints a line about it. Steps are about the file that was opened last.
fn steps() {
    let mut handle = 0;
    for step in arguments().skip(1) {
        let (verb, words) = step.split_once('=').unwrap_or((step, ""));
        match verb {
            "open" => {
                let (flags, path) = words.split_once(':').expect("open=FLAGS:PATH");
                let answer = open(flags_of(flags), path);
                handle = answer.map_or(handle, |answer| answer as u32);
                println!("{answer:?}");
            }
            "use" => handle = words.parse().expect("use=HANDLE"),
            "read" => read(handle, words.parse().expect("read=SIZE, at most 64")),
            "write" => println!("{:?}", write(handle, words.as_bytes())),
            "seek" => println!("{:?}", seek(handle, words)),
            "close" => println!("{:?}", call(Hypercall::FileClose { handle })),
            "stat" => match files::stat(words) {
                Ok(status) if status.is_directory == 1 => println!("directory"),
                Ok(status) => println!("file of {}", status.size),
                Err(error) => println!("{:?}", Err::<(), _>(error)),
            },
            "remove" => println!("{:?}", files::remove(words)),
            _ => panic!("no step `{verb}`"),
        }
    }
}

/// `rw` reads and writes; `c`reate, `t`runcate, `a`ppend, create `n`ew, `d`irectory.
fn flags_of(letters: &str) -> OpenFlags {
    letters.chars().fold(OpenFlags::default(), |flags, letter| {
        flags.and(match letter {
            'r' => OpenFlags::READ,
            'w' => OpenFlags::WRITE,
            'c' => OpenFlags::CREATE,
            't' => OpenFlags::TRUNCATE,
            'a' => OpenFlags::APPEND,
            'n' => OpenFlags::CREATE_NEW,
            'd' => OpenFlags::DIRECTORY,
            _ => panic!("no flag `{letter}`"),
        })
    })
}

fn open(flags: OpenFlags, path: &str) -> Answer {
    let path_gva = Gva(path.as_ptr() as u64);
    call(Hypercall::FileOpen { path_gva, path_size: path.len() as u64, flags })
}

fn read(handle: u32, size: usize) {
    let mut bytes = [0; 64];
    let buffer_gva = Gva((&raw mut bytes) as u64);
    match call(Hypercall::FileRead { handle, buffer_gva, buffer_size: size as u64 }) {
        Ok(count) => println!("{:?}", core::str::from_utf8(&bytes[..count as usize])),
        Err(error) => println!("Err({error:?})"),
    }
}

fn write(handle: u32, bytes: &[u8]) -> Answer {
    let buffer_gva = Gva(bytes.as_ptr() as u64);
    call(Hypercall::FileWrite { handle, buffer_gva, buffer_size: bytes.len() as u64 })
}

/// `start:5`, `current:0`, `end:-1`.
fn seek(handle: u32, words: &str) -> Answer {
    let (origin, offset) = words.split_once(':').expect("seek=ORIGIN:OFFSET");
    let origin = match origin {
        "start" => SeekOrigin::Start,
        "current" => SeekOrigin::Current,
        _ => SeekOrigin::End,
    };
    call(Hypercall::FileSeek { handle, offset: offset.parse().expect("a number"), origin })
}

/// The same as any program with `std` would do it.
fn like_std() -> io::Result<()> {
    let mut file = File::options().read(true).write(true).create_new(true).open("notes")?;
    writeln!(file, "{} and {}", 1, 2)?;
    file.write_all(b"last line\n")?;
    println!("at {}", file.stream_position()?);
    file.seek(SeekFrom::End(-5))?;
    let mut word = [0; 4];
    file.read_exact(&mut word)?;
    println!("{:?}, then {:?}", core::str::from_utf8(&word), file.read_exact(&mut [0; 2]));
    drop(file);
    println!("{} bytes", files::stat("notes")?.size);
    println!("{:?}", File::open("nothing").map(drop));
    File::create("notes")?;
    println!("{} bytes", files::stat("notes")?.size);
    files::remove("notes")
}

fn copy(from: &str, to: &str) -> io::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let buffer = free_ram();
    loop {
        match from.read(buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}

/// A MiB of RAM behind the kernel image.
fn free_ram() -> &'static mut [u8] {
    const SIZE: u64 = 1 << 20;
    let (image, tables, ram) = (boot_info().image, boot_info().page_tables, boot_info().ram[0]);
    let start = image.end.next_multiple_of(SIZE);
    assert!(start + SIZE <= ram.end && (tables.end <= start || start + SIZE <= tables.start));
    // SAFETY: It is RAM, mapped read-write at its own address, all zeros from the host. Only `copy` uses it, once.
    unsafe { core::slice::from_raw_parts_mut(start as *mut u8, SIZE as usize) }
}

fn list(path: &str) -> io::Result<()> {
    let mut directory = Directory::open(path)?;
    while let Some(entry) = directory.next_entry()? {
        println!("{}{}", entry.name()?, if entry.is_directory() { "/" } else { "" });
    }
    Ok(())
}

/// Opens a path very often, while the host exchanges what is there. What is inside starts with an `i`.
fn open_often() {
    let (flags, path) = (flags_of(argument(1)), argument(2));
    let times: u32 = argument(3).parse().expect("a number of times");
    let (mut opened, mut strange, mut refused) = (0, 0, 0);
    for _ in 0..times {
        match open(flags, path) {
            Ok(handle) => {
                opened += 1;
                strange += u32::from(!touch(handle as u32, flags));
            }
            Err(HypercallError::NotPermitted) => refused += 1,
            Err(error) => println!("{error:?}"),
        }
    }
    println!("opened {opened}, strange {strange}, refused {refused}");
}

/// Writes an `i` where that may be, or looks for one; closes.
fn touch(handle: u32, flags: OpenFlags) -> bool {
    let mut byte = [b'i'];
    let buffer_gva = Gva((&raw mut byte) as u64);
    let done = if flags.has(OpenFlags::WRITE) {
        call(Hypercall::FileWrite { handle, buffer_gva, buffer_size: 1 })
    } else {
        call(Hypercall::FileRead { handle, buffer_gva, buffer_size: 1 })
    };
    let _ = call(Hypercall::FileClose { handle });
    done == Ok(1) && byte == *b"i"
}

/// Text that the guest itself cannot change.
static READ_ONLY: &str = "read me only";

/// Hands addresses to the host that are not what they seem. Nothing may move, neither here nor there.
fn bad_buffers() {
    const GUARD: u64 = layout::STACK_GUARD.0;
    let file = open(flags_of("rw"), "file").expect("a file") as u32;
    let directory = open(OpenFlags::DIRECTORY, ".").expect("the directory") as u32;
    for (name, gva, size) in [
        ("null", 0, 16),
        ("end not mapped", GUARD - 8, 16),
        ("middle not mapped", GUARD - 8, layout::STACK_GUARD_SIZE + 16),
        ("behind RAM", 0x7000_0000, 16),
        ("not canonical", 1 << 47, 16),
        ("wrapping", u64::MAX - 7, 16),
        ("larger than RAM", layout::STACK.0, 1 << 40),
        ("endless", layout::STACK.0, u64::MAX),
    ] {
        let (buffer_gva, buffer_size) = (Gva(gva), size);
        let read = call(Hypercall::FileRead { handle: file, buffer_gva, buffer_size });
        let write = call(Hypercall::FileWrite { handle: file, buffer_gva, buffer_size });
        let list = call(Hypercall::DirectoryRead { handle: directory, buffer_gva, buffer_size });
        let path = call(Hypercall::FileRemove { path_gva: buffer_gva, path_size: buffer_size });
        println!("{name}: {read:?} {write:?} {list:?} {path:?}");
    }
    let answer_gva = Gva(READ_ONLY.as_ptr() as u64);
    let (buffer_gva, buffer_size) = (answer_gva, READ_ONLY.len() as u64);
    let read = call(Hypercall::FileRead { handle: file, buffer_gva, buffer_size });
    let list = call(Hypercall::DirectoryRead { handle: directory, buffer_gva, buffer_size });
    let path = "file";
    let (path_gva, path_size) = (Gva(path.as_ptr() as u64), path.len() as u64);
    let stat = call(Hypercall::FileStat { path_gva, path_size, answer_gva });
    println!("not writable: {read:?} {list:?} {stat:?}");
    println!("{READ_ONLY}, at {:?}", seek(file, "current:0"));
}
