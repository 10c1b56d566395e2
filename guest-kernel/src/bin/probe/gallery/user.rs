//! Deaths in ring 3, of processes that the kernel does not live without.
//!
//! Where they happen is no line of the kernel's: RIP is in a program.

use guest_kernel::exceptions;
use guest_kernel::user::{End, Process};

use super::{Death, death};

pub(crate) const DEATHS: &[Death] = &[
    death("user-privileged", "halts the CPU from ring 3", || run(&[0xF4])),
    // `mov al, [0x100000]`
    death("user-kernel-read", "reads the kernel from ring 3", || run(&[0x8A, 0x04, 0x25, 0, 0, 0x10, 0])),
    // `mov eax, 0x100000`, `jmp rax`
    death("user-kernel-jump", "jumps to the kernel from ring 3", || run(&[0xB8, 0, 0, 0x10, 0, 0xFF, 0xE0])),
];

/// Runs a program of these bytes, and dies with it.
fn run(code: &[u8]) {
    let mut process = Process::from_code("crime", code).expect("there is memory for a page of code");
    match process.run_alone() {
        End::Died(frame) => exceptions::die_of(*frame),
        end => panic!("the process {end}"),
    }
}
