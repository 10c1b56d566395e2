//! The invariants of absence in ARCHITECTURE.md: what must not stand in which sources.

use crate::harness::markdown::{code_spans, section};
use crate::harness::tree::{read, rust_files};

/// The code of a file: without comments, and without its unit tests.
fn code(file: &str) -> String {
    let text = if file.ends_with("/tests.rs") { String::new() } else { read(file) };
    let without_tests = text.split("\nmod tests {").next().unwrap_or_default();
    without_tests.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect()
}

#[track_caller]
fn assert_absent(words: &[&str], files: &[String]) {
    assert!(!files.is_empty());
    for file in files {
        let code = code(file);
        for word in words {
            assert!(!code.contains(word), "{file} has `{word}`");
        }
    }
}

#[test]
fn devices_do_not_know_kvm() {
    assert_absent(&["kvm_ioctls", "kvm_bindings", "Vcpu"], &rust_files("vmm/src/devices"));
}

#[test]
fn the_contract_has_no_unsafe_and_no_dependency() {
    assert!(read("shared-abi/src/lib.rs").contains("#![forbid(unsafe_code)]"));
    assert!(!read("shared-abi/Cargo.toml").contains("dependencies"));
}

#[test]
fn host_and_guest_meet_in_the_contract_only() {
    assert!(!read("vmm/Cargo.toml").contains("guest-kernel"));
    assert!(!read("guest-kernel/Cargo.toml").contains("vmm"));
    for dependency in ["vmm", "guest-kernel", "shared-abi"] {
        assert!(!read("xtask/Cargo.toml").contains(&format!("\n{dependency}")), "{dependency}");
    }
}

#[test]
fn the_guest_is_entered_in_one_place() {
    let places: Vec<_> =
        rust_files("vmm/src").into_iter().filter(|file| code(file).contains("fd.run()")).collect();
    assert_eq!(places, ["vmm/src/vcpu.rs"]);
}

#[test]
fn the_loop_does_not_count() {
    assert_absent(&["+=", "println!", "let mut"], &["vmm/src/run_loop.rs".to_owned()]);
}

#[test]
fn nothing_reads_the_configuration_after_build() {
    let build = ["config.rs", "lib.rs", "vm.rs", "boot/mod.rs", "tiny_guest.rs", "guest_tests/run.rs"];
    let mut others = library();
    others.retain(|file| !build.iter().any(|own| *file == format!("vmm/src/{own}")));
    assert_absent(&["VmConfig"], &others);

    let vm = code("vmm/src/vm.rs");
    let uses: Vec<_> = vm.lines().filter(|line| line.contains("VmConfig")).map(str::trim).collect();
    assert_eq!(uses.len(), 2, "`use` and the argument of `Vm::build`: {uses:?}");
}

#[test]
fn the_host_never_unwraps_what_a_guest_may_have_made() {
    assert_absent(&[".unwrap()", "todo!", "unimplemented!", "panic!("], &rust_files("vmm/src"));
}

#[test]
fn the_library_prints_nothing() {
    assert_absent(&["println!", "print!", "eprint!", "dbg!"], &library());
}

#[test]
fn the_program_says_nothing_by_macros_that_panic_when_nobody_listens() {
    let mut binary = rust_files("vmm/src");
    binary.retain(|file| !library().contains(file));
    assert_absent(&["println!", "print!", "eprint!", "dbg!"], &binary);
}

/// The files of `vmm` that are not of its binary alone.
fn library() -> Vec<String> {
    let binary = [
        "vmm/src/main.rs",
        "vmm/src/arena.rs",
        "vmm/src/ctrl_c.rs",
        "vmm/src/say.rs",
        "vmm/src/cli/",
        "vmm/src/commands/",
    ];
    let mut files = rust_files("vmm/src");
    files.retain(|file| !binary.iter().any(|part| file.starts_with(part)));
    files
}

#[test]
fn lessons_have_no_unsafe() {
    let mut lessons = rust_files("guest-kernel/src/bin");
    lessons.retain(|file| file.split('/').any(|part| part.starts_with(|c: char| c.is_ascii_digit())));
    assert_absent(&["unsafe"], &lessons);
}

#[test]
fn unsafe_stands_only_where_the_architecture_says() {
    let architecture = read("ARCHITECTURE.md");
    let places = code_spans(section(&architecture, "## Never"));
    let is_named = |file: &str| {
        places.iter().any(|place| match place.strip_suffix('/') {
            Some(folder) => file.contains(&format!("/{folder}/")),
            None => file == *place || file.ends_with(&format!("/{place}")),
        })
    };
    // The probes' crimes are their purpose.
    let folders = [
        "vmm/src",
        "guest-kernel/src",
        "user-library/src",
        "xtask/src",
        "second-kvm/src",
        "floor/src",
        "fuzz/src",
    ];
    let files = folders.map(rust_files).concat();
    for file in files.iter().filter(|file| !file.starts_with("guest-kernel/src/bin/probe")) {
        let has_unsafe = code(file).replace("#[unsafe(", "").contains("unsafe ");
        assert!(!has_unsafe || is_named(file), "{file} has `unsafe`; ARCHITECTURE.md does not name it");
    }
}
