//! The floor: the least program that runs a guest, and what the VMM's speed is measured against.
//!
//! It makes the system calls without which no guest prints, and nothing else: no check, no CPUID, no option, no report,
//! no signal, no thread, no allocation. What the VMM takes beyond this is the VMM's own. It is kept honest by a test: the
//! same guest prints the same text here and there.
//!
//! ```text
//! floor IMAGE      one vCPU, 16 MiB of RAM; port 0xE9 prints, port 0xF4 ends
//! ```
//!
//! Three files, in the order of a run: [`memory`] puts the image and its page tables into RAM, [`kvm`] has the calls,
//! and `run` below is the loop. There is no Rust start-up code either: `main` is the C library's. What goes wrong ends
//! the program with the name of the call.

#![no_main]

mod kvm;
mod memory;

use core::ffi::{CStr, c_char, c_int};

use shared_abi::ports;

/// Where the C library starts the program.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    if argc != 2 {
        return fail(c"usage: floor IMAGE");
    }
    // SAFETY: The C library passes `argc` strings, each with a NUL behind it.
    let path = unsafe { CStr::from_ptr(*argv.add(1)) };
    let memory = memory::Memory::load(path);
    run_guest(kvm::start(&memory))
}

/// Enters the guest until it writes to the exit port; what it prints is written line by line.
fn run_guest(machine: kvm::Machine) -> c_int {
    let mut line = Line { bytes: [0; 4096], length: 0 };
    loop {
        match machine.enter() {
            Some((ports::DEBUG_CONSOLE, value)) => line.push(value as u8),
            // The benchmarks' guest asks for nothing that must be answered.
            Some((ports::HYPERCALL, _)) => {}
            Some((ports::EXIT, value)) => {
                line.flush();
                return value as c_int;
            }
            Some(_) => return fail(c"a port that the floor does not know"),
            None => return fail(c"an exit that the floor does not know"),
        }
    }
}

/// What the guest has printed of a line.
struct Line {
    bytes: [u8; 4096],
    length: usize,
}

impl Line {
    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
        if byte == b'\n' || self.length == self.bytes.len() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        // SAFETY: The bytes are initialised. A short write would be a full pipe's, and its reader waits for a line.
        unsafe { libc::write(1, self.bytes.as_ptr().cast(), self.length) };
        self.length = 0;
    }
}

/// Says what went wrong; the exit code of whoever could not do its work.
fn fail(what: &CStr) -> c_int {
    for part in [c"floor: ", what, c"\n"] {
        // SAFETY: The text is as long as it says.
        unsafe { libc::write(2, part.as_ptr().cast(), part.count_bytes()) };
    }
    100
}

/// The result of a system call, or the end of the program.
fn checked(result: i64, call: &CStr) -> i64 {
    if result >= 0 {
        return result;
    }
    // SAFETY: Ends the process; nothing here needs to be cleaned up.
    unsafe { libc::_exit(fail(call)) }
}
