//! The tour of CPU modes: each guest in its mode, what it proves, and what is said of images and KVMs that do not fit.
//!
//! The guests are cut out of the program `modes` (`xtask/src/modes/image.rs`), as `cargo xtask modes` cuts them, and run by
//! the `vmm` program, which checks what they leave behind: 42 in RAX and in memory, as in the C program of 2018 that this
//! project's course was built on.

use std::ffi::OsString;
use std::fs;

use shared_abi::{Gpa, Gva};
use tempfile::TempDir;
use vmm::features::Feature;
use vmm::{Contract, Error, Flat, KernelSource, Start, StartMode, Vm, VmConfig};
use xtask::modes::image::Image;
use xtask::modes::road;
use xtask::modes::table::{Form, Guest, MODES, Trial};

use crate::harness::needs::{self, needs};
use crate::harness::{Seen, boot, guest, refusal, vmm};

/// A guest of the tour, about to be run.
struct Tourist {
    guest: Guest,
    image: Image,
    folder: TempDir,
}

impl Tourist {
    /// The guest with this file name.
    fn new(file: &str) -> Self {
        let guests = MODES.iter().filter_map(|mode| match mode.trial {
            Trial::Guest(guest) => Some(guest),
            _ => None,
        });
        let found = guests.into_iter().find(|guest| guest.file == file);
        let image = Image::cut(&fs::read(guest("modes")).expect("the guests are built"), file);
        Self {
            guest: found.expect("the tour has such a guest"),
            image: image.expect("the program has it"),
            folder: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// Runs it with these options, and whatever else it needs.
    fn run(&self, options: &[&str]) -> Seen {
        let path = self.folder.path().join(self.guest.file);
        let is_flat = self.guest.form == Form::Flat;
        let bytes = if is_flat { self.image.code.clone() } else { self.image.to_elf32() };
        fs::write(&path, bytes).expect("a writable directory");
        let load_at = format!("{:#x}", self.image.address);
        let mut words = vec!["run", "--timeout", "20s", "--mode", self.guest.start];
        if is_flat {
            words.extend(["--load-at", &load_at]);
        }
        words.push(path.to_str().expect("UTF-8"));
        words.extend(options);
        vmm(&words)
    }

    /// Expects it to print these lines, and to leave 42 in RAX and in memory.
    #[track_caller]
    fn proves(&self, lines: &[&str]) -> String {
        let mark = format!("{:#x}=42", self.guest.mark);
        let seen = self.run(&["--expect-rax", "42", "--expect-mem", &mark]);
        assert_eq!(seen.code, Some(0), "{seen:?}");
        for line in lines {
            assert!(seen.stdout.lines().any(|own| own == *line), "`{line}` is missing in: {}", seen.stdout);
        }
        seen.stdout
    }
}

#[test]
fn real_mode_has_interrupt_vectors_and_twenty_bits_of_address() {
    let printed = Tourist::new("real").proves(&[
        "real mode: hello through int 21h, by the vector table at address 0",
        "real mode: 0040:0000 and 0000:0400 are one address",
    ]);
    assert!(printed.contains("real mode: FFFF:0510 is 0x"), "{printed}");
}

#[test]
fn unreal_mode_reaches_beyond_one_mebibyte() {
    let unreal = Tourist::new("unreal");
    unreal.proves(&["unreal mode: 16-bit code without protection has written at 0x200000"]);
    assert_eq!(unreal.run(&["--expect-mem", "0x200000=42"]).code, Some(0));
}

#[test]
fn sixteen_bit_protected_mode_has_bases_of_24_bits() {
    let protected = Tourist::new("protected16");
    protected.proves(&[
        "16-bit protected mode: selector 0x10, offset 0 is 0x200000, by a descriptor with a base of 24 bits",
    ]);
    assert_eq!(protected.run(&["--expect-mem", "0x200000:2=42"]).code, Some(0));
}

#[test]
fn protected_mode_refuses_a_selector_without_a_descriptor() {
    Tourist::new("protected").proves(&[
        "32-bit protected mode: hello, all of memory in one segment",
        "32-bit protected mode: selector 0x40 is refused with #GP(0x40)",
    ]);
}

#[test]
fn two_levels_of_tables_map_pages_of_two_sizes() {
    needs!(Paging32);
    Tourist::new("paged32").proves(&[
        "32-bit paging: 0x800400 (a page of 4 KiB) and 0xc0000400 (a page of 4 MiB) are both 0x400",
    ]);
}

#[test]
fn three_levels_of_tables_forbid_to_execute() {
    needs!(Pae);
    Tourist::new("pae")
        .proves(&["PAE paging: 0x200000 can be read, and to fetch from it is #PF(0x11): no execute"]);
}

#[test]
fn a_virtual_8086_task_prints_through_its_monitor() {
    needs!(Virtual8086);
    Tourist::new("v86").proves(&[
        "virtual-8086 mode: hello from a DOS program, by int 21h",
        "virtual-8086 mode: its monitor in ring 0 has emulated int 21h and int 20h",
    ]);
}

#[test]
fn long_mode_has_wide_registers_and_an_upper_half() {
    Tourist::new("long").proves(&["long mode: r15 holds 64 bits, and 0xffff800000020000 is 0x20000"]);
}

#[test]
fn compatibility_mode_runs_32_bit_code_beside_64_bit_code() {
    Tourist::new("compatibility").proves(&[
        "compatibility mode: byte 40 is a prefix in 64-bit code and inc eax in 32-bit code; to there and back",
    ]);
}

#[test]
fn five_levels_of_tables_have_addresses_of_57_bits_where_a_cpu_has_them() {
    let tourist = Tourist::new("la57");
    if needs::features().has(Feature::FiveLevelPaging) {
        tourist.proves(&["5-level paging: 0x4000000000400 is an address, and leads to 0x400"]);
        return;
    }
    // Where it does not, CR4.LA57 is a reserved bit, and the guest dies of setting it: no KVM takes that for success.
    let seen = tourist.run(&[]);
    assert_eq!(seen.code, Some(102), "{seen:?}");
    assert!(seen.stdout.is_empty() && seen.stderr.contains("a triple fault"), "{seen:?}");
}

#[test]
fn the_whole_road_leads_to_long_mode_and_back() {
    let printed = Tourist::new("road").proves(&[]);
    let lines: Vec<String> = printed.lines().map(str::to_owned).collect();
    let told = road::told(&lines);
    let changes = [
        ("real", "16-bit code, base CS · 16"),
        ("protected", "CR0.PE = 1, CS = 0x8: 32-bit code (L = 0, D = 1)"),
        ("compatibility", "CR0.PG = 1, CR4.PAE = 1, EFER.LME = 1, EFER.LMA = 1"),
        ("long", "CS = 0x18: 64-bit code (L = 1)"),
        (
            "protected",
            "CR0.PG = 0, CR4.PAE = 0, EFER.LME = 0, EFER.LMA = 0, CS = 0x8: 32-bit code (L = 0, D = 1)",
        ),
        ("real", "CR0.PE = 0, CS = 0x1000: 16-bit code, base CS · 16"),
    ];
    assert_eq!(told.len(), changes.len(), "{told:#?}");
    for (told, (mode, change)) in told.iter().zip(changes) {
        assert!(told.starts_with(mode) && told.ends_with(&format!("  {change}")), "{told}");
    }
}

#[test]
fn a_mode_whose_registers_a_kvm_changes_is_never_a_success() {
    for (mode, feature) in [(StartMode::Paged32, Feature::Paging32), (StartMode::Pae, Feature::Pae)] {
        let mut config = VmConfig::new(KernelSource::Bytes([0xF4].into()));
        config.start = Start { mode, flat: Some(flat(0x1_0000)) };
        config.contract = Contract::None;
        match Vm::build(config) {
            Ok(vm) => {
                assert!(needs::features().has(feature), "{mode} is kept, and {feature} is missing");
                let paging = vm.cpu_state().expect("registers are readable").page_tables();
                assert_eq!(paging, vm.map().first_tables(), "{mode}");
            }
            Err(Error::RegistersChanged { difference, mode: name, .. }) => {
                assert!(!needs::features().has(feature), "{feature} is there, and {mode} is not kept");
                assert!(difference.contains("PAGING") && name == mode.name(), "{difference}");
            }
            Err(other) => panic!("{mode}: {other}"),
        }
    }
}

/// A flat image that goes to `gpa` and starts there.
fn flat(gpa: u64) -> Flat {
    Flat { load_at: Gpa(gpa), entry: Gva(gpa) }
}

#[test]
fn what_a_guest_leaves_otherwise_than_expected_is_named() {
    let real = Tourist::new("real");
    let seen = real.run(&[
        "--expect-rax",
        "43",
        "--expect-mem",
        "0x400=42",
        "--expect-mem",
        "0x400:1=0xff",
        "--expect-mem",
        "0xc0000000=0",
    ]);
    assert_eq!(seen.code, Some(103), "{seen:?}");
    let sentences: Vec<_> = seen.stderr.lines().collect();
    assert_eq!(
        sentences,
        [
            "vmm: RAX was expected to be 43 (0x2b), and is 42 (0x2a)",
            "vmm: GPA 0x400 was expected to hold 255 (0xff), and holds 42 (0x2a)",
            "vmm: GPA 0xc0000000 was expected to hold 0 (0x0), and no RAM is there",
        ]
    );
    assert!(real.run(&["--expect-mem", "0x400:3=1"]).stderr.contains("3 bytes are not 1, 2, 4 or 8"));
}

/// A folder with images, and the runs that refuse them.
struct Wrong(TempDir);

impl Wrong {
    #[track_caller]
    fn image(&self, name: &str, bytes: &[u8], options: &[&str], words: &[&str]) {
        let path = self.0.path().join("image");
        fs::write(&path, bytes).expect("a writable directory");
        let mut arguments: Vec<OsString> = options.iter().map(Into::into).collect();
        arguments.push(path.into());
        refusal::of(name, &refusal::run(&arguments), words);
    }
}

/// A name, an image, options, and words of the refusal.
type Row<'a> = (&'a str, Vec<u8>, &'a [&'a str], &'a [&'a str]);

#[test]
fn images_that_do_not_fit_their_mode_are_refused() {
    let wrong = Wrong(tempfile::tempdir().expect("a temporary directory"));
    let elf32 = |address| Image { address, code: vec![0xF4; 4] }.to_elf32();
    let elf64 = fs::read(guest("01_hello")).expect("the guest was built");
    let patched = |at: usize, byte: u8| {
        let mut bytes = elf32(0x1_0000);
        bytes[at] = byte;
        bytes
    };
    let code = [0xF4; 4];
    #[rustfmt::skip]
    let rows: [Row; 18] = [
        ("ELF32 in long mode",        elf32(0x1_0000), &[],                     &["not ELF64", "--mode protected"]),
        ("ELF64 in protected mode",   elf64.clone(),   &["--mode", "protected"], &["not ELF32, as 32-bit protected mode needs", "byte is 2"]),
        ("ELF64 in real mode",        elf64.clone(),   &["--mode", "real"],     &["not ELF32, as real mode needs"]),
        ("ELF32 for another CPU",     patched(18, 40), &["--mode", "pae"],      &["machine 40, not for i386 (3)"]),
        ("ELF32 object file",         patched(16, 1),  &["--mode", "pae"],      &["type is 1", "link it first"]),
        ("ELF32 of big bytes",        patched(5, 2),   &["--mode", "pae"],      &["not little-endian"]),
        ("ELF32 header size",         patched(42, 56), &["--mode", "pae"],      &["56 bytes each, ELF32 has 32"]),
        ("ELF32 headers in header",   patched(28, 51), &["--mode", "pae"],      &["byte 51", "of 52 bytes"]),
        ("ELF32 truncated",           elf32(0x1_0000)[..60].to_vec(), &["--mode", "pae"], &["truncated", "the file has 60"]),
        ("entry beyond 1 MiB",        elf32(0x10_0000), &["--mode", "real"],    &["entry point 0x100000 lies beyond 0x100000, where real mode ends"]),
        ("flat entry beyond 1 MiB",   code.to_vec(),   &["--mode", "real", "--load-at", "0x100000"], &["0x100000 lies beyond 0x100000", "real mode"]),
        ("flat entry beyond 4 GiB",   code.to_vec(),   &["--mode", "pae", "--load-at", "0x100000000"], &["beyond 0x100000000, where PAE paging ends"]),
        ("entry outside the image",   code.to_vec(),   &["--mode", "real", "--load-at", "0x7c00", "--entry", "0x7c04"], &["entry point 0x7c04", "no executable segment"]),
        ("flat without an address",   code.to_vec(),   &["--mode", "real"],     &["not an ELF file", "needs --load-at"]),
        ("ELF with an address",       elf32(0x1_0000), &["--mode", "real", "--load-at", "0x7c00"], &["it is an ELF file", "leave out --load-at"]),
        ("flat and empty",            Vec::new(),      &["--mode", "real", "--load-at", "0x7c00"], &["the file is empty"]),
        ("flat and too large",        vec![0xF4; 3 << 20], &["--mode", "real", "--memory", "2M", "--load-at", "0"], &["0x0..0x300000 ", "2 MiB end at 0x200000"]),
        ("flat over the stack",       code.to_vec(),   &["--mode", "protected", "--load-at", "0x7fffe"], &["stack at 0x70000..0x80000"]),
    ];
    for (name, bytes, options, words) in rows {
        wrong.image(name, &bytes, options, words);
    }
    wrong.image("flat at the end", &code, &["--load-at", "0xfffffffffffffffe"], &["wraps around the end"]);
    wrong.image("flat in page 0", &code, &["--load-at", "0"], &["null page at 0x0..0x1000"]);
}

#[test]
fn a_wrong_mode_is_a_wrong_argument() {
    for (arguments, words) in [
        (&["--mode", "smm", "image"][..], &["smm", "real, protected, paged32, pae, long"][..]),
        (&["--entry", "0x7c00", "image"], &["--load-at"]),
        (&["--load-at", "here", "image"], &["`here` is no address"]),
    ] {
        refusal::of_arguments(arguments, words);
    }
}

#[test]
fn a_contract_is_for_long_mode_alone() {
    let mut config = VmConfig::new(KernelSource::Bytes([0xF4].into()));
    config.start = Start { mode: StartMode::Real, flat: Some(flat(0x7C00)) };
    let error = Vm::build(config).map(drop).expect_err("real mode makes no hypercalls");
    let Error::Image { source, .. } = error else { panic!("{error}") };
    assert!(
        source.to_string().contains("a guest that starts in real mode can make no hypercalls"),
        "{source}"
    );
}

#[test]
fn every_mode_is_seen_working_where_the_table_says_so() {
    let kvm = needs::features().kvm_name();
    for mode in MODES.iter().filter(|mode| mode.seen_on.contains(&kvm)) {
        let Some(name) = mode.feature else { continue };
        let finding = needs::features().findings.iter().find(|finding| finding.feature == name);
        let finding = finding.unwrap_or_else(|| panic!("there is no feature `{name}`"));
        assert!(finding.present, "{kvm} was seen to have {name}, and now: {:?}", finding.seen);
    }
}

#[test]
fn a_guest_with_svm_runs_a_guest_of_its_own() {
    needs!(NestedSvm);
    let printed = boot("16_hypervisor").run().succeeded();
    let expected = "does the CPU offer this kernel SVM? yes\n\
                    inner> hello from the guest in the guest\n\
                    it left 34 times by an OUT, and then by VMMCALL, with 42 in RAX\n";
    assert_eq!(printed, expected);
}

#[test]
fn a_guest_without_svm_says_so() {
    if needs::features().has(Feature::NestedSvm) {
        return;
    }
    let printed = boot("16_hypervisor").run().succeeded();
    assert!(
        printed.starts_with("does the CPU offer this kernel SVM? no: CPUID 80000001h:ECX bit 2 is 0"),
        "{printed}"
    );
}

#[test]
fn an_8080_prints_and_tests_itself() {
    let printed = boot("17_8080").run().succeeded();
    assert_eq!(printed, "8080: hello from 1974\n8080: the self-test has passed\n");
}

/// What `vmm run` says of a flat image with this code, loaded at 0x1_0000 and started in this mode.
fn death(mode: &str, code: &[u8]) -> Seen {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let image = folder.path().join("image");
    fs::write(&image, code).expect("a writable directory");
    vmm(&["run", "--timeout", "20s", "--mode", mode, "--load-at", "0x10000", image.to_str().expect("UTF-8")])
}

#[test]
fn a_death_is_explained_in_the_words_of_its_mode() {
    // out 0x55, al, where no device is.
    let real = death("real", &[0x90, 0xE6, 0x55]);
    // mov fs, ax, with AX = 0x40 and no GDT.
    let protected = death("protected", &[0x66, 0xB8, 0x40, 0x00, 0x8E, 0xE0]);
    for (seen, words) in [
        (
            &real,
            &[
                "the guest died: it wrote 0x0 (1 bytes) to port 0x55, where no device is",
                // At the instruction or behind it, as the KVM has it.
                "fact: the CPU is in real mode, at 1000:000",
                ", linear 0x1000",
            ][..],
        ),
        (
            &protected,
            &[
                "the guest died: #GP: general protection: selector 0x40 is outside the GDT with limit 0x0",
                "-> IDT limit 0x0, no gate for vector 13",
                "fact: the CPU is in 32-bit protected mode, at 0x8:0x10004, linear 0x10004",
                "fact: SS, DS, ES, FS, GS 0x10: base 0x0, limit 0xffffffff, data, writable, ring 0",
                "instruction: at 0x10004: 8e e0  mov fs, ax",
            ],
        ),
    ] {
        assert_eq!(seen.code, Some(102), "{seen:?}");
        for word in words {
            assert!(seen.stderr.contains(word), "`{word}` is missing in: {}", seen.stderr);
        }
    }
}
