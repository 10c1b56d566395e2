//! What a bad image or a bad size of memory gets: one line that says what is wrong, with numbers, and exit code 100,
//! or 2 when the command line itself is wrong. Never a panic, a hang, or a byte on stdout.
//!
//! Each row of a table is one run of the real program: a name, what is wrong, and words the line must have.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use crate::harness::elf::{Elf, PT_NOTE, R, RW, RX, Segment};
use crate::harness::{Seen, guest, refusal, vmm_binary};

#[test]
fn what_is_no_file_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name);
    fs::write(at("empty"), []).expect("a writable directory");
    let pipe = Command::new("mkfifo").arg(at("pipe")).status();
    assert!(pipe.expect("mkfifo, of coreutils").success());
    let _socket = UnixListener::bind(at("socket")).expect("a writable directory");
    symlink("nowhere", at("dangling")).expect("a writable directory");
    symlink("loop", at("loop")).expect("a writable directory");

    for (path, complaint) in [
        (at("missing"), "cannot read the file: No such file or directory"),
        (at("dangling"), "cannot read the file: No such file or directory"),
        (at("empty/image"), "cannot read the file: Not a directory"),
        (at("loop"), "cannot read the file: Too many levels of symbolic links"),
        (at(&"x".repeat(300)), "cannot read the file: File name too long"),
        (at("empty"), "the file is empty"),
        (at(""), "it is a directory, not a file"),
        (at("pipe"), "it is a device, pipe or socket, not a file"),
        (at("socket"), "it is a device, pipe or socket, not a file"),
        ("/dev/zero".into(), "it is a device, pipe or socket, not a file"),
    ] {
        refusal::of(complaint, &refusal::run(&[path]), &["cannot boot", complaint]);
    }
}

#[test]
fn a_line_break_in_a_file_name_breaks_no_line() {
    refusal::of("two lines", &refusal::run(&["two\nlines"]), &["two\\nlines"]);
}

#[test]
fn what_is_no_executable_for_x86_64_is_refused() {
    let right = || Elf::new(TEXT).with(text());
    #[rustfmt::skip]
    let rows = [
        ("script",      b"#!/bin/sh\n".to_vec(),                     &["not an ELF file", "[23, 21, 2f, 62]"][..]),
        ("one byte",    vec![0x7F],                                  &["not an ELF file", "[7f]"]),
        ("magic only",  b"\x7fELF".to_vec(),                         &["ELF header", "byte 64", "the file has 4"]),
        ("ELF32",       Elf { class: 1, ..right() }.to_bytes(),      &["not ELF64", "class byte is 1"]),
        ("no class",    Elf { class: 0, ..right() }.to_bytes(),      &["not ELF64", "class byte is 0"]),
        ("big-endian",  Elf { data: 2, ..right() }.to_bytes(),       &["not little-endian", "data byte is 2"]),
        ("i386",        Elf { machine: 3, ..right() }.to_bytes(),    &["machine 3", "not for x86-64 (62)"]),
        ("AArch64",     Elf { machine: 183, ..right() }.to_bytes(),  &["machine 183", "not for x86-64 (62)"]),
        ("object file", Elf { kind: 1, ..right() }.to_bytes(),       &["type is 1", "2 (ET_EXEC)", "link it first"]),
        ("PIE",         Elf { kind: 3, ..right() }.to_bytes(),       &["type is 3", "link it with -static -no-pie"]),
        ("core file",   Elf { kind: 4, ..right() }.to_bytes(),       &["type is 4", "not an executable"]),
    ];
    for (name, bytes, words) in rows {
        refusal::of_image(name, &bytes, words);
    }
}

#[test]
fn program_headers_that_cannot_be_read_are_refused() {
    let right = || Elf::new(TEXT).with(text());
    #[rustfmt::skip]
    let rows = [
        ("none",              Elf::new(TEXT),                                       &["no loadable segment"][..]),
        ("65535",             Elf { header_count: Some(0xFFFF), ..right() },        &["65535 program", "at most 256"]),
        ("beyond the end",    Elf { header_count: Some(200), ..right() },           &["byte 11264", "file has 124"]),
        ("32 bytes",          Elf { header_size: 32, ..right() },                   &["32 bytes each", "has 56"]),
        ("0 bytes",           Elf { header_size: 0, ..right() },                    &["0 bytes each", "has 56"]),
        ("in the ELF header", Elf { headers_offset: Some(63), ..right() },          &["byte 63", "of 64 bytes"]),
        ("behind the end",    Elf { headers_offset: Some(1 << 40), ..right() },     &["byte 1099511627832", "has 124"]),
        ("wrapping",          Elf { headers_offset: Some(u64::MAX - 8), ..right() }, &["truncated", "file has 124"]),
    ];
    for (name, image, words) in rows {
        refusal::of_image(name, &image.to_bytes(), words);
    }
}

#[test]
fn segments_that_make_no_sense_are_refused() {
    let only = |segment| Elf::new(TEXT).with(segment);
    let with = |segment| Elf::new(TEXT).with(text()).with(segment);
    let data = |address| Segment::new(address, RW, b"data");
    let at_2m = || data(0x20_0000);
    #[rustfmt::skip]
    let rows = [
        ("only notes", only(Segment { kind: PT_NOTE, ..text() }),
            &["no loadable segment"][..]),
        ("no size", only(Segment::new(TEXT, RX, b"")),
            &["no loadable segment"]),
        ("more bytes in the file than in memory", with(at_2m().in_memory(3)),
            &["segment 1", "0x4 bytes in the file", "0x3 in memory"]),
        ("address wraps", with(data(u64::MAX - 2)),
            &["segment 1 wraps", "0x4 bytes at 0xfffffffffffffffd"]),
        ("size in memory wraps", with(at_2m().in_memory(u64::MAX)),
            &["segment 1 wraps", "0xffffffffffffffff bytes at 0x200000"]),
        ("offset wraps", with(Segment { file_offset: Some(u64::MAX), ..at_2m() }),
            &["segment 1 wraps", "0x4 bytes at offset 0xffffffffffffffff"]),
        ("offset behind the end", with(Segment { file_offset: Some(1000), ..at_2m() }),
            &["truncated", "byte 1004", "the file has 184"]),
        ("bytes behind the end", with(Segment { file_size: Some(0x1000), ..at_2m() }),
            &["truncated", "byte 4276", "the file has 184"]),
        ("virtual is not physical", with(Segment { gva: 0xFFFF_FFFF_8020_0000, ..at_2m() }),
            &["segment 1", "0xffffffff80200000", "0x200000"]),
        ("overlap", with(data(TEXT + 2)),
            &["segments 0 and 1 overlap", "0x100000..0x100004", "0x100002..0x100006"]),
        ("overlap, the higher one first", only(data(TEXT + 2)).with(text()),
            &["segments 1 and 0 overlap", "0x100000..0x100004", "0x100002..0x100006"]),
    ];
    for (name, image, words) in rows {
        refusal::of_image(name, &image.to_bytes(), words);
    }
}

#[test]
fn an_entry_that_cannot_be_executed_is_refused() {
    let image = |entry| Elf::new(entry).with(text()).with(Segment::new(0x20_0000, R, b"rodata"));
    for (name, entry) in [
        ("null", 0),
        ("before the text", TEXT - 1),
        ("behind the text", TEXT + 4),
        ("in read-only data", 0x20_0000),
        ("not canonical", 1 << 63),
    ] {
        let words = [&format!("its entry point {entry:#x}"), "no executable segment"];
        refusal::of_image(name, &image(entry).to_bytes(), &words);
    }
}

#[test]
fn segments_where_they_cannot_lie_are_refused() {
    #[rustfmt::skip]
    let rows = [
        ("null page",       "16M", 0, 16,                    &["at 0x0..0x10 ", "null page at 0x0..0x1000"][..]),
        ("boot info",       "16M", 0x1FFF, 1,                &["0x1fff..0x2000", "boot info at 0x1000..0x2000"]),
        ("arguments",       "16M", 0xF800, 0x1000,           &["0xf800..0x10800", "arguments at 0x2000..0x10000"]),
        ("its guard",       "16M", 0x2_F800, 0x801,          &["..0x30001", "machine check stack guard at 0x30000..0x31000"]),
        ("between guards",  "16M", 0x3_5000, 1,              &["..0x35001", "NMI stack guard at 0x35000..0x36000"]),
        ("fault stack",     "16M", 0x3_B000, 1,              &["..0x3b001", "fault stack at 0x3b000..0x3f000"]),
        ("stack guard",     "16M", 0x3_F800, 0x801,          &["..0x40001", "stack guard at 0x3f000..0x40000"]),
        ("stack",           "16M", 0x7_FFFF, 2,              &["0x7ffff..0x80001", "stack at 0x40000..0x80000"]),
        ("behind RAM",      "16M", 16 << 20, 4096,           &["0x1000000..0x1001000", "16 MiB end at 0x1000000"]),
        ("half behind RAM", "2M", 0x1F_F000, 0x1001,         &["0x1ff000..0x200001", "2 MiB end at 0x200000"]),
        ("larger than RAM", "16M", 0x20_0000, 1 << 40,       &["0x200000..0x10000200000", "--memory gives more"]),
        ("hole",            "4G", 0xC000_0000, 4096,         &["0xc0000000..0xc0001000", "0x0..0xc0000000 and"]),
        ("across the hole", "4G", 0xBFFF_F000, 0x4000_2000,  &["0xbffff000..0x100001000", "4 GiB lie at"]),
        ("behind high RAM", "4G", 0x1_4000_0000, 1,          &["0x140000000..0x140000001", "0x100000000..0x140000000"]),
    ];
    for (name, memory, address, size, words) in rows {
        let image = Elf::new(TEXT).with(text()).with(Segment::new(address, RW, b"").in_memory(size));
        let words: Vec<&str> = words.iter().copied().chain(["segment 1"]).collect();
        refusal::of_image_in(name, memory, &image.to_bytes(), &words);
    }
}

#[test]
fn an_image_that_leaves_no_room_for_page_tables_is_refused() {
    let image = Elf::new(0x8_0000)
        .with(Segment::new(0x1_0000, RW, b"").in_memory(0x2_0000))
        .with(Segment::new(0x8_0000, RX, b"\xF4").in_memory(0x18_0000));
    let words = ["4 page tables", "2 MiB of RAM", "2 MiB pages", "give more memory"];
    refusal::of_image_in("full", "2M", &image.to_bytes(), &words);
}

#[test]
fn an_image_that_carries_no_contract_is_refused_with_advice() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let image = directory.path().join("image.elf");
    fs::write(&image, Elf::new(TEXT).with(text()).to_bytes()).expect("a writable directory");
    let seen = Seen::of(Command::new(vmm_binary()).arg("run").arg(image));
    refusal::of("no contract", &seen, &["it carries no contract", "--no-contract"]);
}

#[test]
fn a_truncated_guest_is_refused() {
    let guest = fs::read(guest("01_hello")).expect("the guest was built");
    for size in [1, 63, 64, 119, 120, 4096, 8192] {
        let bytes = guest.get(..size).expect("the guest has more than two pages");
        let complaint = match size {
            1 => "it starts with [7f]".to_owned(),
            _ => format!("the file has {size}\n"),
        };
        refusal::of_image("truncated", bytes, &[&complaint]);
    }
}

#[test]
fn an_impossible_size_of_memory_is_a_wrong_argument() {
    for (size, words) in [
        ("0", &["0 bytes are too little", "at least 2097152 bytes"][..]),
        ("2097151", &["2097151 bytes are too little"]),
        ("2097153", &["2097153 bytes", "whole pages of 4096"]),
        ("257G", &["275951648768 bytes are too much", "at most 274877906944"]),
        ("20000000000000000000", &["too much", "at most 274877906944"]),
        ("lots", &["`lots` is not a size", "16M"]),
        ("-1", &["`-1` is not a size"]),
    ] {
        refusal::of_arguments(&[&format!("--memory={size}"), "image.elf"], words);
    }
}

#[test]
fn a_wrong_command_line_is_refused() {
    for (arguments, words) in [
        (&[][..], &["<IMAGE>"][..]),
        (&["--page-size", "3m", "image.elf"], &["3m", "4k, 2m, 1g"]),
        (&["--timeout", "0", "image.elf"], &["`0` is not between 0 and one year"]),
        (&["--colour", "red", "image.elf"], &["--colour"]),
        (&["image.elf", "second.elf"], &["second.elf"]),
    ] {
        refusal::of_arguments(arguments, words);
    }
}

#[test]
fn more_memory_than_the_host_gives_is_named() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let image = directory.path().join("image.elf");
    fs::write(&image, Elf::new(TEXT).with(text()).to_bytes()).expect("a writable directory");

    // One GiB of address space for the whole process.
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -v 1048576; exec "$0" run --no-contract --memory 64G "$1""#]);
    let seen = Seen::of(shell.args([vmm_binary(), image]));

    let words = ["cannot reserve address space of 64 GiB", "Cannot allocate memory"];
    refusal::of("64G", &seen, &words);
}

/// Where the images here have their text and their entry.
const TEXT: u64 = 0x10_0000;

/// Four HLTs.
fn text() -> Segment {
    Segment::new(TEXT, RX, b"\xF4\xF4\xF4\xF4")
}
