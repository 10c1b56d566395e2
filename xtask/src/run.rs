//! `cargo xtask run`: builds a guest and the VMM, and boots the one in the other.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::boot::{self, BootCommand};

const RUN: BootCommand = BootCommand { name: "run", help: HELP, takes_addresses: false };

const HELP: &str = "\
Builds a guest program and the VMM, and boots the one in the other

Usage: cargo xtask run [PROGRAM] [--release|--debug] [--no-debug-info] [--kvm host|qemu] [VMM OPTIONS] [-- GUEST ARGUMENTS]

PROGRAM is a name that `cargo xtask list` shows, or the path of an ELF file; without it, 01_hello runs.

--no-debug-info builds the program with the names of its functions alone, as a stripped kernel has them: then reports tell
no files and lines, and say so. Of an ELF file that is there already, reports leave them out.

--kvm qemu does without /dev/kvm: QEMU emulates a CPU on which Linux runs with its kvm_amd, and the VMM runs there. It
needs qemu-system-x86, and a Linux kernel: Debian's, which apt fetches, or --kernel FILE --modules DIR.

Examples:
  cargo xtask run
  cargo xtask run 01_hello --release --memory 64G
  cargo xtask run 01_hello --timeout 2s -- first second
  cargo xtask run ./my-kernel.elf
  cargo xtask run --kvm qemu 01_hello

The VMM options are those of `vmm run`:
";

/// Runs the command with the words behind `cargo xtask run`.
///
/// # Errors
/// When something cannot be built or the VMM cannot be started. What the guest does is the exit code.
pub fn run(words: &[OsString]) -> Result<ExitCode> {
    boot::boot(&RUN, words)
}
