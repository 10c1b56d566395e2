//! Memory with a known content: fills some of it from a file, then waits.
//!
//! `cargo xtask lab ksm` runs several of these and looks what the host makes of their equal pages. The file is read in
//! one exit, so the host's kernel writes all pages and the guest touches none. A line `lab: BYTES` says that they are
//! there; the guest ends when its input does.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::sync::atomic::AtomicU8;

use guest_kernel::hypercall::{Hypercall, call, console_read};
use guest_kernel::{Gva, entry, println};
use shared_abi::hypercall::OpenFlags;

entry!(main);

fn main() {
    let handle = call(Hypercall::FileOpen {
        path_gva: Gva(FILE.as_ptr() as u64),
        path_size: FILE.len() as u64,
        flags: OpenFlags::READ,
    });
    let handle = handle.expect("`--dir` has a file `content`") as u32;
    let (buffer_gva, buffer_size) = (Gva(CONTENT.0.as_ptr() as u64), CONTENT.0.len() as u64);
    let read =
        call(Hypercall::FileRead { handle, buffer_gva, buffer_size }).expect("a file that can be read");
    println!("lab: {read}");
    while console_read(&mut [0; 64]).is_ok_and(|typed| typed > 0) {}
}

const FILE: &str = "content";

/// What the file has. Atomics, because it is the host who writes them.
static CONTENT: Pages = Pages([const { AtomicU8::new(0) }; 16 << 20]);

#[repr(align(4096))]
struct Pages([AtomicU8; 16 << 20]);
