//! Kernels that know nothing of us: C, compiled by `cc` and laid out by `ld`, in the ways people link such programs.
//!
//! A machine without `cc` fails these tests: that the VMM boots more than our own kernels is a promise.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::refusal;

/// Prints a line and exits with code 7, if constants, data and BSS are what C promises.
const PROGRAM: &str = r#"
    /* The CPU starts here, not with a call: a stack as the ABI wants it comes from the call below. */
    __asm__(".globl _start\n_start: call start\n");

    static const char line[] = "hello from ld\n";
    static volatile unsigned data = 0x1234;
    static volatile unsigned char bss[10000];

    static void outb(unsigned short port, unsigned char value) {
        __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
    }

    void start(void) {
        for (const char *next = line; *next; next++)
            outb(0xE9, *next);
        data += 1;
        for (unsigned i = 0; i < sizeof bss; i++)
            data += bss[i];
        bss[sizeof bss - 1] = 1;
        outb(0xF4, data == 0x1235 ? 7 : 1);
        for (;;)
            __asm__ volatile("hlt");
    }
"#;

const FREESTANDING: [&str; 7] =
    ["-ffreestanding", "-nostdlib", "-static", "-no-pie", "-fno-pic", "-fno-stack-protector", "-Wall"];

#[test]
fn a_c_program_runs_wherever_and_however_it_is_linked() {
    for (way, flags) in [
        ("as ld likes it, at 4 MiB", &[][..]),
        ("text at 2 MiB", &["-Wl,-Ttext=0x200000"]),
        ("everything at 1 MiB", &["-Wl,-Ttext-segment=0x100000"]),
        ("one segment with all rights", &["-Wl,-N"]),
        ("one segment with all rights, at 128 KiB", &["-Wl,-N", "-Wl,-Ttext=0x20000"]),
        ("segments that share pages", &["-Wl,-z,noseparate-code", "-Wl,-z,norelro"]),
        ("pages of 2 MiB", &["-Wl,-z,max-page-size=0x200000"]),
        ("optimised", &["-O2"]),
        ("with debugging information", &["-g", "-Wl,--build-id"]),
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let image = compile(directory.path(), &[&FREESTANDING, flags].concat());

        let seen = refusal::run(&[image]);

        assert_eq!(seen.code, Some(7), "{way}: {seen:?}");
        assert_eq!(seen.stdout, "hello from ld\n", "{way}");
        assert_eq!(seen.stderr, "", "{way}");
    }
}

#[test]
fn what_cc_makes_for_other_purposes_is_refused_with_advice() {
    for (flags, words) in [
        (&["-ffreestanding", "-c"][..], &["type is 1", "link it first"][..]),
        (&["-nostdlib", "-static-pie", "-fpie"], &["type is 3", "link it with -static -no-pie"]),
        (&["-nostdlib", "-shared", "-fpic"], &["type is 3", "link it with -static -no-pie"]),
    ] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let image = compile(directory.path(), flags);
        refusal::of(&format!("{flags:?}"), &refusal::run(&[image]), words);
    }
}

fn compile(directory: &Path, flags: &[&str]) -> PathBuf {
    let (source, image) = (directory.join("program.c"), directory.join("program"));
    std::fs::write(&source, PROGRAM).expect("a writable directory");
    let compiled = Command::new("cc")
        .args(flags)
        .arg("-o")
        .args([&image, &source])
        .output()
        .expect("a C compiler, such as gcc");
    assert!(compiled.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&compiled.stderr));
    image
}
