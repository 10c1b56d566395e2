//! The ledger of exits: who made them, where in the source, how often.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use vmm::observe::{Kind, LineRow, Stats, Summary};
use vmm::{Console, KernelSource, StopReason, Vm};

use crate::harness::needs::needs;
use crate::harness::{Boot, Finished, boot, guest, optimised_guest, patiently, probe, vmm_binary, vmm_run};

const HELLO: (&str, &str) =
    ("guest-kernel/src/bin/01_hello.rs", include_str!("../guest-kernel/src/bin/01_hello.rs"));
const PORT: (&str, &str) = ("guest-kernel/src/cpu/port.rs", include_str!("../guest-kernel/src/cpu/port.rs"));
const CALLS: (&str, &str) =
    ("guest-kernel/src/bin/probe/calls.rs", include_str!("../guest-kernel/src/bin/probe/calls.rs"));
const HYPERCALL: (&str, &str) =
    ("guest-kernel/src/hypercall.rs", include_str!("../guest-kernel/src/hypercall.rs"));

/// `file:line` of the first line that contains `marker`.
fn place((file, text): (&str, &str), marker: &str) -> String {
    let line = text.lines().position(|line| line.contains(marker)).expect("the marker stands in the source");
    format!("{file}:{}", line + 1)
}

/// Runs a guest with stats.
fn watched(mut boot: Boot) -> (Summary, Finished) {
    let (console, captured) = Console::capture();
    boot.config.console = console;
    let mut vm = Vm::build(boot.config).expect("the machine can be built: is /dev/kvm there?");
    let mut stats = Stats::new(&vm);
    let report = vm.run_observed(&mut stats).expect("the host can do its work");
    let summary = stats.summary(&vm.symbols());
    (summary, Finished { report, console: captured.text(), vm })
}

/// The only row whose handler has this name.
#[track_caller]
fn row<'a>(summary: &'a Summary, handler: &str) -> &'a LineRow {
    let rows: Vec<_> = summary.lines.iter().filter(|row| row.handler == Some(handler)).collect();
    let [row] = rows[..] else { panic!("{handler}: {}\n{summary}", rows.len()) };
    row
}

/// Two places: the program's line, and the instruction's.
fn places(row: &LineRow) -> [String; 2] {
    [&row.caller, &row.instruction].map(|line| {
        let line = line.as_ref().expect("a line is known");
        format!("{}:{}", line.file.as_deref().unwrap_or("?"), line.line.unwrap_or(0))
    })
}

#[test]
fn hello_by_byte_is_an_exit_a_byte_on_the_line_that_prints() {
    let (summary, finished) = watched(boot("01_hello"));

    let console = row(&summary, "console");
    let line = "hello from the guest\n";
    assert_eq!((console.kind, console.port), (Kind::PioOut, Some(0xE9)));
    assert_eq!((console.tally.exits, console.tally.bytes), (line.len() as u64, line.len() as u64));
    assert_eq!(places(console), [place(HELLO, "println_raw!(\""), place(PORT, "asm!(")]);
    assert!(console.tally.guest_ns > 0 && console.tally.host_ns > 0, "{summary}");
    assert_eq!(finished.succeeded(), line);
}

#[test]
fn a_line_by_buffer_is_one_exit() {
    let (summary, finished) = watched(probe("println 7"));

    let call = row(&summary, "ConsoleWrite");
    assert_eq!((call.kind, call.call, call.tally.exits), (Kind::Hypercall, Some(2), 1));
    assert_eq!(places(call), [place(CALLS, "(\"println\", "), place(HYPERCALL, "core::arch::asm!(")]);
    assert_eq!(call.tally.bytes, finished.succeeded().len() as u64);
}

#[test]
fn an_optimised_guest_has_the_same_lines() {
    let (summary, _) = watched(
        boot("01_hello").with(|config| config.kernel = KernelSource::File(optimised_guest("01_hello"))),
    );
    let console = row(&summary, "console");
    assert_eq!(places(console), [place(HELLO, "println_raw!(\""), place(PORT, "asm!(")]);
    assert_eq!(console.tally.exits, 21);
}

#[test]
fn every_exit_of_the_report_is_in_the_ledger_however_the_guest_ends() {
    for deed in
        ["count-exits", "panic", "read-null", "write-hole", "unclaimed-port-in", "hostile 500 7", "exit 3"]
    {
        let (summary, finished) = watched(probe(deed));
        let exits = finished.report.exits;
        assert_eq!((summary.total.exits, summary.counts), (exits.total(), exits), "{deed}");
        assert_eq!(summary.lines.iter().map(|row| row.tally.exits).sum::<u64>(), exits.total(), "{deed}");
        let of_kind =
            |kind| summary.kinds.iter().filter(|row| row.kind == kind).map(|row| row.tally.exits).sum();
        let counted: [u64; 4] = [Kind::PioOut, Kind::PioIn, Kind::Hypercall, Kind::MmioWrite].map(of_kind);
        assert_eq!(counted, [exits.pio_out, exits.pio_in, exits.hypercall, exits.mmio_write], "{deed}");
        assert!(summary.lines.iter().all(|row| row.caller.is_some()), "{deed}: {summary}");
    }
}

#[test]
fn stats_as_json_are_the_reports_counts_and_have_a_version() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("UTF-8");

    let seen = vmm_run("probe", &["--timeout", "20s", "--stats", "--stats-json", path, "--", "count-exits"]);

    let json: Value = serde_json::from_slice(&fs::read(path).expect("written")).expect("JSON");
    assert_eq!(json["version"], Summary::VERSION);
    let sum = |rows: &Value| -> u64 {
        rows.as_array().expect("rows").iter().map(|row| row["exits"].as_u64().expect("a number")).sum()
    };
    let counts: u64 = json["counts"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
    // The guest itself asks for its exits; one more prints the answer, and one ends it.
    let asked = seen.stdout.lines().last().and_then(|line| line.rsplit(' ').nth(1)).expect("a number");
    assert_eq!(counts, asked.parse::<u64>().expect("a number") + 2, "{}", seen.stdout);
    assert_eq!([&json["lines"], &json["kinds"]].map(sum), [counts, counts]);
    assert_eq!(json["total"]["exits"], counts);
    assert!(
        seen.stderr.contains("exits by kind") && seen.stderr.contains("exits by line"),
        "{}",
        seen.stderr
    );
    assert_eq!(seen.code, Some(0));
}

#[test]
fn what_debug_information_lacks_is_said_and_the_rest_is_used() {
    let image = fs::read(guest("01_hello")).expect("the guest was built");
    let without_lines = renamed(&image, b".debug_info\0");
    let damaged = overwritten(&image, ".debug_info");
    let without_names = without_symbols(&without_lines);
    for (image, why, has_names) in [
        (without_lines, "no debug information", true),
        (damaged, "damaged", true),
        (without_names, "no symbol table", false),
    ] {
        let (summary, finished) =
            watched(boot("01_hello").with(|config| config.kernel = KernelSource::Bytes(image.into())));

        let missing = summary.missing.clone().expect("it is said");
        assert!(missing.contains(why), "{missing}");
        let console = row(&summary, "console");
        assert_eq!(console.tally.exits, 21);
        let caller = console.caller.as_ref().expect("an address at least");
        let name = caller.function.as_deref().unwrap_or_default();
        assert_eq!((name.ends_with("hello::main"), caller.line), (has_names, None), "{why}: {caller}");
        assert!(has_names || caller.address > 0x10_0000, "{caller}");
        assert_eq!(finished.succeeded(), "hello from the guest\n", "{why}");
    }
}

/// The image with another name for a section: nobody finds it.
fn renamed(image: &[u8], name: &[u8]) -> Vec<u8> {
    let at = image.windows(name.len()).position(|window| window == name).expect("the section is there");
    let mut image = image.to_vec();
    image[at + 1] = b'X';
    image
}

/// The image with all bytes of a section the same.
fn overwritten(image: &[u8], name: &str) -> Vec<u8> {
    use object::{Object, ObjectSection};
    let elf = object::File::parse(image).expect("an ELF file");
    let (start, size) =
        elf.section_by_name(name).and_then(|section| section.file_range()).expect("in the file");
    let mut image = image.to_vec();
    image[start as usize..(start + size) as usize].fill(0xFF);
    image
}

/// The image with its symbol table declared to be nothing (ELF-64 Object File Format, 4: `sh_type`).
fn without_symbols(image: &[u8]) -> Vec<u8> {
    const SHT_SYMTAB: [u8; 4] = 2u32.to_le_bytes();
    let word = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().expect("8 bytes")) as usize;
    let count = usize::from(u16::from_le_bytes([image[60], image[61]]));
    let table = word(40);
    let mut image = image.to_vec();
    for header in (0..count).map(|index| table + index * 64) {
        if image[header + 4..header + 8] == SHT_SYMTAB {
            image[header + 4..header + 8].fill(0);
        }
    }
    image
}

#[test]
fn without_registers_at_exits_there_are_counts_and_a_sentence() {
    let mut vm = Vm::build(boot("01_hello").config).expect("the machine can be built");
    vm.forgo_register_sync().expect("KVM takes registers");
    let mut stats = Stats::new(&vm);
    let report = vm.run_observed(&mut stats).expect("the host can do its work");
    let summary = stats.summary(&vm.symbols());
    assert_eq!((summary.total.exits, report.stop), (22, StopReason::Exited { code: 0 }));
    assert!(summary.missing.is_some_and(|missing| missing.contains("KVM_CAP_SYNC_REGS")));
}

#[test]
fn a_trace_is_a_line_an_exit() {
    let seen = vmm_run("01_hello", &["--timeout", "20s", "--trace"]);

    let lines: Vec<&str> = seen.stderr.lines().filter(|line| line.trim_start().starts_with('#')).collect();
    assert_eq!(lines.len(), 22, "{}", seen.stderr);
    assert!(lines[0].contains("out 0xe9 console") && lines[0].contains("68 'h'"), "{}", lines[0]);
    assert!(lines[0].contains(&place(HELLO, "println_raw!(\"")), "{}", lines[0]);
    assert!(lines[21].contains("out 0xf4 exit"), "{}", lines[21]);
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "hello from the guest\n"));
}

#[test]
fn a_filter_shows_what_fits_one_of_its_words() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_str().expect("UTF-8");
    let traced = |filter: &str| {
        let filter = format!("--trace={filter}");
        let seen =
            vmm_run("probe", &["--timeout", "20s", &filter, "--trace-file", path, "--", "count-exits"]);
        assert_eq!(seen.code, Some(0), "{seen:?}");
        let text = fs::read_to_string(path).expect("written");
        text.lines().filter(|line| line.trim_start().starts_with('#')).count()
    };
    assert_eq!(traced("port=0xf4"), 1);
    assert_eq!(traced("ExitCount"), 6, "three, and what the guest asks then");
    assert_eq!(traced("port=0xf4,ConsoleWrite"), 2);
    assert_eq!(traced("calls::count_exits,exit"), traced(""));
    assert_eq!(traced("mmio,halt"), 0);

    let seen = vmm_run("01_hello", &["--trace=port=x"]);
    assert!(seen.code == Some(2) && seen.stderr.contains("`x` is no port"), "{seen:?}");
}

#[test]
fn a_file_that_cannot_be_written_is_named_before_the_guest_starts() {
    for option in ["--trace-file", "--timeline"] {
        let seen = vmm_run("01_hello", &[option, "/nonexistent/file"]);
        assert_eq!((seen.code, seen.stdout.as_str()), (Some(100), ""), "{seen:?}");
        assert!(seen.stderr.contains("/nonexistent/file"), "{seen:?}");
    }
}

#[test]
fn however_often_a_guest_exits_those_who_watch_take_no_more_memory() {
    // Elsewhere the host keeps what it has answered, up to 32 MiB, to repeat the guest's death.
    needs!(StateAfterTripleFault);
    let mut vmm = Command::new(vmm_binary())
        .args(["run", "--timeout", "60s", "--stats", "--trace-file", "/dev/null", "--timeline", "/dev/null"])
        .arg(guest("probe"))
        .args(["--", "flood"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the VMM starts");
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", vmm.id())).expect("it runs");
        // Its own memory: pages of the program are counted when they are first used, which may be late.
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("it has memory");
        line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).expect("KiB")
    };
    // Reading debug information takes memory once, and on a slow host a while.
    let mut seen = vec![0];
    while seen.len() < 6 && !matches!(seen[..], [.., early, late] if early > 0 && late <= early + 512) {
        sleep(patiently(Duration::from_millis(1500)));
        seen.push(resident());
    }
    vmm.kill().expect("it runs");
    vmm.wait().expect("it ends");
    assert!(matches!(seen[..], [.., early, late] if late <= early + 512), "KiB: {seen:?}");
}
