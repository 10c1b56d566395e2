//! Wishes to be kept, and what a guest finds afterwards.

use guest_kernel::files::File;
use guest_kernel::hypercall;
use guest_kernel::snapshot::{self, Continued};
use guest_kernel::time::Instant;
use guest_kernel::{print, println};

use crate::{Deed, number};

pub(crate) const DEEDS: &[Deed] = &[
    ("snapshot", || ask("asked")),
    ("snapshot-often", || (0..number()).for_each(|_| ask("asked"))),
    ("snapshot-with-file", ask_with_file),
    ("identity", || println!("{}", snapshot::identity() == snapshot::identity())),
];

/// Asks once, and tells who goes on, what has changed, and what has not.
fn ask(word: &str) {
    let before = (snapshot::identity(), random(), Instant::now(), hypercall::monotonic_ns());
    print!("{word}, ");
    let continued = snapshot::take();
    let after = (snapshot::identity(), random(), Instant::now(), hypercall::monotonic_ns());
    match continued {
        Ok(Continued::Original) => print!("original"),
        Ok(Continued::Copy { number }) => print!("copy {number}"),
        Err(error) => return println!("{error:?}"),
    }
    let identity = if before.0 == after.0 { "same" } else { "another" };
    let time = if before.2 <= after.2 && before.3 <= after.3 { "goes on" } else { "went back" };
    let random = if before.1 == after.1 { "repeat" } else { "differ" };
    println!(": {identity} identity, time {time}, random numbers {random}");
}

fn random() -> [u8; 16] {
    let mut bytes = [0; 16];
    hypercall::random_bytes(&mut bytes).expect("16 bytes");
    bytes
}

/// With a file open it cannot be kept; when that is closed, it can.
fn ask_with_file() {
    let file = File::open("file").expect("a granted directory");
    ask("open");
    drop(file);
    ask("closed");
}
