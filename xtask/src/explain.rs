//! `cargo xtask explain`, `map` and `walk`: what `vmm` tells about a machine, for a guest program that is built first.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::boot::{self, BootCommand};

const EXPLAIN: BootCommand = BootCommand { name: "explain", help: EXPLAIN_HELP, takes_addresses: false };
const MAP: BootCommand = BootCommand { name: "map", help: MAP_HELP, takes_addresses: false };
const WALK: BootCommand = BootCommand { name: "walk", help: WALK_HELP, takes_addresses: true };

const EXPLAIN_HELP: &str = "\
Runs a guest program and answers where everything was: memory, page tables, kvm_run, entry, exits, result

Usage: cargo xtask explain [PROGRAM] [--release|--debug] [--kvm host|qemu] [VMM OPTIONS] [-- GUEST ARGUMENTS]

Examples:
  cargo xtask explain
  cargo xtask explain probe --memory 5G --json -- println 7
  cargo xtask explain --peek 0x1000:64

The VMM options are those of `vmm explain`:
";

const MAP_HELP: &str = "\
Shows a guest program's memory as one table, made by walking the live page tables, and what is wrong with them

Usage: cargo xtask map [PROGRAM] [--release|--debug] [--kvm host|qemu] [VMM OPTIONS] [-- GUEST ARGUMENTS]

Examples:
  cargo xtask map
  cargo xtask map probe --at-stop -- write-hole

The VMM options are those of `vmm map`:
";

const WALK_HELP: &str = "\
Shows how addresses of a guest program are translated: every entry from CR3 on, every bit by name

Usage: cargo xtask walk [PROGRAM] GVA… [--release|--debug] [--kvm host|qemu] [VMM OPTIONS] [-- GUEST ARGUMENTS]

Examples:
  cargo xtask walk main
  cargo xtask walk probe --at-stop 0xc0000000 -- write-hole

The VMM options are those of `vmm walk`:
";

/// Runs the command with the words behind `cargo xtask explain`.
///
/// # Errors
/// When something cannot be built or the VMM cannot be started. What the guest does is the exit code.
pub fn explain(words: &[OsString]) -> Result<ExitCode> {
    boot::boot(&EXPLAIN, words)
}

/// Runs the command with the words behind `cargo xtask map`.
///
/// # Errors
/// As [`explain`].
pub fn map(words: &[OsString]) -> Result<ExitCode> {
    boot::boot(&MAP, words)
}

/// Runs the command with the words behind `cargo xtask walk`.
///
/// # Errors
/// As [`explain`].
pub fn walk(words: &[OsString]) -> Result<ExitCode> {
    boot::boot(&WALK, words)
}
