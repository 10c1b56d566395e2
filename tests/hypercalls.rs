//! Hypercalls: what they answer, what they cost, and that no guest can misuse them.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use shared_abi::layout;
use vmm::{Contract, Input, Log, StopReason};

use crate::harness::{boot, guest, optimised_guest, probe, vmm_run};

#[test]
fn a_printed_line_is_one_exit_however_long_and_a_raw_one_an_exit_a_byte() {
    let finished = probe("println 7").run();
    assert_eq!(finished.report.exits.hypercall, 1);
    assert_eq!(finished.succeeded(), "a line with a number: 7\n");

    let finished = probe("println-raw").run();
    assert_eq!(finished.report.exits.hypercall, 0);
    assert_eq!(finished.report.exits.pio_out, "byte by byte\n".len() as u64 + 1, "and one to end");
}

#[test]
fn a_line_longer_than_its_buffer_loses_nothing() {
    let console = probe("long-line").run().succeeded();
    assert_eq!((console.len(), console.trim()), (2001, "end"));
}

#[test]
fn the_exit_call_ends_the_run_with_its_code() {
    probe("exit-by-call 42").run().stopped_by(&StopReason::Exited { code: 42 });
    let huge = probe(&format!("exit-by-call {}", 1u64 << 40)).run();
    huge.stopped_by(&StopReason::Exited { code: u32::MAX });
}

#[test]
fn what_is_typed_is_read_to_its_end() {
    let typed = "first line\nand without end";
    let console = probe("echo").with(|config| config.input = Input::bytes(typed)).run().succeeded();
    assert_eq!(console, format!("{typed}(end)\n"));
}

#[test]
fn reading_without_waiting_says_that_nothing_was_typed_yet() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(crate::harness::vmm_binary())
        .args(["run".as_ref(), guest("probe").as_os_str()])
        .args(["--", "try-read"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the VMM starts");
    let stdin = child.stdin.take();
    let output = child.wait_with_output().expect("the VMM ends");
    drop(stdin);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Err(WouldBlock)\n");
}

#[test]
fn a_guest_that_waits_for_input_is_stopped_by_its_time_limit() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(crate::harness::vmm_binary())
        .args(["run".as_ref(), guest("probe").as_os_str()])
        .args(["--timeout", "200ms", "--", "echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the VMM starts");
    let _stdin = child.stdin.take();
    assert_eq!(child.wait().expect("the VMM ends").code(), Some(124));
}

#[test]
fn the_guest_learns_its_exits_by_kind() {
    let console = probe("count-exits").run().succeeded();
    // Three counts, then one of port writes, one of calls that counts itself, and one of all.
    assert_eq!(console, "ten bytes\n10 port writes, 5 calls, 16 exits\n");
}

#[test]
fn a_host_without_register_sync_answers_the_same() {
    let (console, captured) = vmm::Console::capture();
    let config = probe("count-exits").with(|config| config.console = console).config;
    let mut vm = vmm::Vm::build(config).expect("KVM");
    vm.forgo_register_sync().expect("KVM takes registers");
    assert_eq!(vm.run().expect("the host works").stop, StopReason::Exited { code: 0 });
    assert_eq!(captured.text(), "ten bytes\n10 port writes, 5 calls, 16 exits\n");
}

#[test]
fn an_address_is_translated_to_gpa_and_hva() {
    let finished = probe(&format!("translate {}", layout::STACK.0 + 5)).run();
    let hva = finished.vm.memory().hva(shared_abi::Gpa(layout::STACK.0 + 5)).expect("RAM");
    let console = finished.succeeded();
    for part in
        ["gpa: 40005", &format!("hva: {hva:x}"), "page_size: 1000", "writable: 1", "executable: 0", "user: 0"]
    {
        assert!(console.contains(part), "{part} in {console}");
    }
}

#[test]
fn an_address_that_is_not_mapped_has_no_translation() {
    for gva in [0, layout::STACK_GUARD.0, 0xC000_0000, 1 << 47, u64::MAX] {
        assert_eq!(probe(&format!("translate {gva}")).run().succeeded(), "None\n", "{gva:#x}");
    }
}

#[test]
fn the_clocks_are_the_hosts() {
    let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let console = probe("clocks").run().succeeded();
    let after = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();

    let (never_back, wall) = console.trim().split_once(' ').expect("two words");
    assert_eq!(never_back, "true");
    let wall: u128 = wall.parse().expect("nanoseconds");
    assert!((before..=after).contains(&wall), "{before} <= {wall} <= {after}");
}

#[test]
fn random_bytes_differ_from_run_to_run() {
    let (first, second) = (probe("random").run().succeeded(), probe("random").run().succeeded());
    assert_ne!(first, second);
    assert_eq!(first.split(',').count(), 16);
}

#[test]
fn arguments_are_cut_where_the_buffer_ends_and_their_size_is_told() {
    let console = boot("probe").arguments(&["arguments-by-call", "x"]).run().succeeded();
    assert_eq!(console, "Ok(20) Ok(\"argument\")\n");
}

#[test]
fn log_records_join_the_hosts_log_and_are_bounded() {
    let records = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&records);
    let log = Log::to(move |record| sink.lock().expect("no panic").push(record.to_string()));
    let console = probe("log").with(|config| config.log = log).run().succeeded();

    assert_eq!(console, "Err(TooLarge)\n", "5000 bytes are too many");
    let records = records.lock().expect("no panic");
    assert_eq!(*records, ["WARN probe: first\\nsecond", "DEBUG probe: only for who asks"]);
}

#[test]
fn the_log_goes_to_stderr_down_to_the_level_asked_for() {
    let seen = vmm_run("probe", &["--", "log"]);
    assert_eq!(seen.stderr, "guest: WARN probe: first\\nsecond\n");
    let seen = vmm_run("probe", &["--log", "debug", "--", "log"]);
    assert!(seen.stderr.ends_with("guest: DEBUG probe: only for who asks\n"), "{seen:?}");
    assert_eq!(vmm_run("probe", &["--log", "off", "--", "log"]).stderr, "");
}

#[test]
fn wrong_pointers_are_answered_with_an_error_and_nothing_is_transferred() {
    let console = probe("misuse").run().succeeded();
    let expected = "\
null: host writes bad address, host reads bad address
null, nothing: host writes ok, host reads ok
unaligned: host writes ok, host reads ok
huge: host writes too large, host reads too large
larger than ram: host writes too large, host reads too large
wrapping: host writes bad address, host reads bad address
to the very end: host writes bad address, host reads bad address
unmapped in the middle: host writes bad address, host reads too large
read-only: host writes bad address, host reads ok
boot info: host writes bad address, host reads ok
straddling the end of ram: host writes bad address, host reads bad address
up to the end of ram: host writes ok, host reads ok
guard page: host writes bad address, host reads bad address
hole: host writes bad address, host reads bad address
non-canonical: host writes bad address, host reads bad address
do not overwrite
";
    assert_eq!(console, expected);
}

#[test]
fn a_hostile_guest_cannot_panic_hang_or_grow_the_vmm() {
    let directory = tempfile::tempdir().expect("a directory");
    let before = resident_bytes();
    for seed in 1..=4 {
        let grant = (seed % 2 == 0).then(|| vmm::Grant {
            path: directory.path().to_owned(),
            mode: vmm::GrantMode::ReadWrite,
            limits: vmm::Limits::default(),
        });
        // Optimised: an interpreted guest spends its time between the calls otherwise.
        let mut hostile = probe(&format!("hostile 20000 {seed}"));
        hostile.config.kernel = vmm::KernelSource::File(optimised_guest("probe"));
        hostile.config.directory = grant;
        hostile.config.console = vmm::Console::discard();
        hostile.config.timeout = Some(std::time::Duration::from_secs(120));
        let report = vmm::Vm::build(hostile.config).and_then(|mut vm| vm.run()).expect("the host works");

        assert_eq!(report.stop, StopReason::Exited { code: 0 }, "seed {seed}: {report}");
        assert!(report.exits.hypercall > 20_000);
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more after 80,000 calls");
}

/// VmRSS of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

#[test]
fn a_guest_without_contract_makes_no_hypercalls() {
    let finished = probe("println 7").with(|config| config.contract = Contract::None).run();
    let rung = StopReason::UnclaimedPort { port: 0xE8, size: 4, written: None };
    finished.stopped_by(&rung);
}

#[test]
fn a_guest_of_another_contract_is_refused_with_what_differs() {
    let bytes = std::fs::read(guest("01_hello")).expect("the guest was built");
    let (ours, theirs) = (b"BootInfo.version: u64 at 8,", b"BootInfo.version: u32 at 8,");
    let place = bytes.windows(ours.len()).position(|window| window == ours).expect("the note is in the file");
    let mut other = bytes.clone();
    other[place..place + theirs.len()].copy_from_slice(theirs);

    let mut config = boot("01_hello").config;
    config.kernel = vmm::KernelSource::Bytes(other.into());
    let error = vmm::Vm::build(config).expect_err("another contract");

    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(cause.contains("`BootInfo.version`: host u64 at 8, 8 bytes, guest u32 at 8, 8 bytes"), "{cause}");
}

#[test]
fn every_channel_delivers_its_text() {
    let finished = boot("lab_console").arguments(&["1"]).run();
    let report = finished.report.clone();
    let console = finished.succeeded();
    let text: String =
        console.lines().filter(|line| line.starts_with('.')).map(|line| format!("{line}\n")).collect();
    let line = format!("{}\n", ".".repeat(63));
    let ways = console.lines().filter(|line| line.starts_with("lab: ")).count();
    let missing = console.lines().filter(|line| line.contains("not here")).count();
    assert_eq!(ways, 8, "{console}");
    assert_eq!(text, line.repeat(64 * (ways - missing)), "{report}");
}
