//! Holds the guests of other CPU modes, which `cargo xtask modes` cuts out and runs; alone it lists them.
//!
//! Each file of assembly beside this one is a guest for itself, of 16, 32 or 64 bits. The linker puts all of them into one
//! section at 0x1_0000, where every mode reaches (`guest-kernel/link.ld`), and the compiler assembles them as it does all
//! our assembly: there is no other tool. `xtask/src/modes/` cuts a guest out of this program's ELF file by its two
//! symbols, and gives it to the VMM as a flat image or as ELF32, whichever its mode is used to.
//!
//! None of them has Rust code, a stack frame or our contract: they have the ports of console and exit. Each prints what it
//! proves, stores 42, and ends with 42 in EAX.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::{entry, println};

#[cfg(target_os = "none")]
core::arch::global_asm!(
    r#".section .modes, "awx""#,
    include_str!("macros.s"),
    include_str!("real.s"),
    include_str!("unreal.s"),
    include_str!("protected16.s"),
    include_str!("protected.s"),
    include_str!("paged32.s"),
    include_str!("pae.s"),
    include_str!("v86.s"),
    include_str!("long.s"),
    include_str!("compatibility.s"),
    include_str!("la57.s"),
    include_str!("road.s"),
    // As the compiler expects it.
    ".code64",
    ".text",
    options(raw)
);

entry!(main);

/// The guests, by the names of their files.
const GUESTS: [&str; 11] = [
    "real",
    "unreal",
    "protected16",
    "protected",
    "paged32",
    "pae",
    "v86",
    "long",
    "compatibility",
    "la57",
    "road",
];

fn main() {
    println!("guests of other CPU modes, which `cargo xtask modes` runs:");
    for guest in GUESTS {
        println!("  {guest}");
    }
}
