//! Reads and writes files of the host: those in one directory, and no others.
//!
//! # What you will see
//!
//! ```console
//! $ mkdir shelf
//! $ cargo xtask run 14_files --dir shelf:rw
//! wrote numbers.txt: 5 lines, 16 bytes
//! the largest of [3, 141, 59, 26, 535] is 535
//! the directory has: numbers.txt (16 bytes)
//! ../secret.txt: the host answered NotPermitted
//! $ cat shelf/numbers.txt
//! 3
//! 141
//! 59
//! 26
//! 535
//! $ cargo xtask run 14_files
//! numbers.txt: the host answered NotGranted
//! ```
//!
//! # Where to look
//!
//! A guest has no disk here. It asks the host by hypercalls to open, read and write, and the host has been told what it
//! may give: one directory, by `--dir`. A path that leads out of it is refused by Linux itself.
//!
//! Guest: `guest-kernel/src/files.rs` has the names that `std::fs` has. Host: `vmm/src/hypercall/files/mod.rs` answers,
//! and keeps the guest in its directory; what each call means is in `shared-abi/src/hypercall.rs`.
//!
//! # Exercises
//!
//! 1. Grant the directory without `:rw`: `--dir shelf`. Which answer comes now? `NotGranted`.
//! 2. Append a line by `File::options().append(true)`, and have the largest number found again.
//! 3. `cargo xtask run 14_files --dir shelf:rw --stats`: an exit for each call, whatever the size of the file.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::files::{self, Directory};
use guest_kernel::io;
use guest_kernel::prelude::*;
use guest_kernel::{entry, println};

entry!(main);

fn main() {
    const NAME: &str = "numbers.txt";
    if let Err(error) = work_with(NAME) {
        return println!("{NAME}: {error}");
    }
    const OUTSIDE: &str = "../secret.txt";
    match files::read(OUTSIDE) {
        Ok(bytes) => println!("{OUTSIDE}: {} bytes, which should not be", bytes.len()),
        Err(error) => println!("{OUTSIDE}: {error}"),
    }
}

fn work_with(name: &str) -> io::Result<()> {
    let lines: String = [3, 141, 59, 26, 535].iter().map(|number| format!("{number}\n")).collect();
    files::write(name, &lines)?;
    println!("wrote {name}: {} lines, {} bytes", lines.lines().count(), lines.len());

    let text = files::read_to_string(name)?;
    let numbers: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    println!("the largest of {numbers:?} is {}", numbers.iter().max().unwrap_or(&0));

    let mut directory = Directory::open(".")?;
    while let Some(entry) = directory.next_entry()? {
        println!("the directory has: {} ({} bytes)", entry.name()?, files::stat(entry.name()?)?.size);
    }
    Ok(())
}
