//! Debugging with gdb itself, driven in batch: what a user sees.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use vmm::features::Feature;
use xtask::workspace;

use crate::harness::needs::{features, needs};
use crate::harness::tree::read;
use crate::harness::{Seen, guest, send, vmm_binary};

const DEBUGGEE: &str = "guest-kernel/src/bin/probe/debuggee.rs";

/// The number of the line of [`DEBUGGEE`] that ends with this mark.
fn line(mark: &str) -> usize {
    let mark = format!("// line: {mark}");
    let source = read(DEBUGGEE);
    source.lines().position(|line| line.ends_with(&mark)).unwrap_or_else(|| panic!("no {mark}")) + 1
}

/// A VMM whose guest waits for gdb.
struct Waiting {
    vmm: Child,
    folder: TempDir,
}

/// What was seen of gdb, and of the VMM.
struct Debugged {
    gdb: Seen,
    vmm: Seen,
}

impl Waiting {
    /// Starts the probe, about to do `deed`.
    fn start(deed: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(vmm_binary());
        command.arg("run").arg(guest("probe")).args(["--timeout", "30s"]);
        command.arg(format!("--gdb=unix:{}", folder.path().join("gdb").display()));
        command.arg("--").args(deed.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
        let vmm = command.spawn().expect("the VMM starts");
        let waiting = Self { vmm, folder };
        let start = Instant::now();
        while !waiting.socket().metadata().is_ok_and(|metadata| metadata.file_type().is_socket()) {
            assert!(start.elapsed() < Duration::from_secs(10), "the VMM waits for gdb");
            std::thread::sleep(Duration::from_millis(5));
        }
        waiting
    }

    fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join("gdb")
    }

    /// gdb, connected, and about to execute these commands.
    fn gdb(&self, commands: &[&str]) -> Command {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-iex", "set confirm off", "-iex", "set width 0"]).arg(guest("probe"));
        gdb.arg(format!("--directory={}", workspace::root().display()));
        gdb.args(["-ex", &format!("target remote {}", self.socket().display())]);
        for command in commands {
            gdb.args(["-ex", command]);
        }
        gdb
    }

    fn end(self, gdb: Seen) -> Debugged {
        Debugged { gdb, vmm: Seen::from(self.vmm.wait_with_output().expect("the VMM ends")) }
    }
}

/// Debugs the probe with these commands, until both have ended.
fn gdb(deed: &str, commands: &[&str]) -> Debugged {
    let waiting = Waiting::start(deed);
    let seen = Seen::of(&mut waiting.gdb(commands));
    waiting.end(seen)
}

impl Debugged {
    /// Expects gdb to have said these things, in this order.
    #[track_caller]
    fn said(&self, parts: &[&str]) {
        let mut rest = self.gdb.stdout.as_str();
        for part in parts {
            match rest.split_once(part) {
                Some((_, behind)) => rest = behind,
                None => panic!(
                    "gdb did not say `{part}`\n{}\n{}\nVMM: {:?}",
                    self.gdb.stdout, self.gdb.stderr, self.vmm
                ),
            }
        }
    }
}

#[test]
fn next_goes_from_line_to_line_and_print_shows_locals_and_structs() {
    let debugged = gdb(
        "debuggee",
        &[
            "break probe::debuggee::debuggee",
            "continue",
            "next",
            "print first",
            "next",
            "print point",
            "print point.y",
            "next",
            "print sum",
            "next",
            "next",
            "continue",
        ],
    );
    let at = |mark| format!("\n{}\t", line(mark));
    debugged.said(&[
        "Breakpoint 1, probe::debuggee::debuggee () at guest-kernel/src/bin/probe/debuggee.rs:",
        &at("first"),
        &at("point"),
        "$1 = 20",
        &at("sum"),
        "$2 = probe::debuggee::Point {x: 20, y: 22}",
        "$3 = 22",
        &at("store"),
        "$4 = 42",
        &at("print"),
        &at("last"),
        "exited normally",
    ]);
    assert_eq!((debugged.vmm.code, debugged.vmm.stdout.as_str()), (Some(0), "the sum is 42\nx=20 done\n"));
}

#[test]
fn step_goes_into_a_function_and_finish_out_of_it() {
    let sum = format!("break debuggee.rs:{}", line("sum"));
    let debugged = gdb("debuggee", &[&sum, "continue", "step", "backtrace 2", "finish", "kill"]);
    debugged.said(&[
        "probe::debuggee::add (point=",
        "#1 ",
        &format!("debuggee.rs:{}", line("sum")),
        "Value returned is $1 = 42",
    ]);
}

#[test]
fn a_backtrace_leads_from_the_panic_handler_to_the_first_instruction() {
    let debugged = gdb("debuggee-panic", &["break rust_begin_unwind", "continue", "backtrace", "continue"]);
    debugged.said(&[
        "#0  guest_kernel::panic::panic",
        "in probe::debuggee::debuggee_panic (code=7)",
        &format!("debuggee.rs:{}", line("panic")),
        "in probe::main ()",
        "in guest_kernel::boot::start",
        "in _start ()",
        "exited with code 0145]",
    ]);
    assert_eq!(debugged.vmm.code, Some(101), "{:?}", debugged.vmm);
    assert!(debugged.vmm.stdout.contains("debuggee_panic was called with 7"), "{:?}", debugged.vmm);
}

#[test]
fn ctrl_c_in_gdb_stops_a_spinning_guest_and_its_memory_can_be_changed() {
    let mut waiting = Waiting::start("debuggee-loop");
    let mut command =
        waiting.gdb(&["continue", "backtrace", "set var probe::debuggee::WATCHED.v.value = 1", "continue"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("gdb starts");

    let mut printed = String::new();
    let stdout = waiting.vmm.stdout.take().expect("stdout is piped");
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut printed).expect("the guest prints");
    assert_eq!(printed, "looping\n");
    send(&child, libc::SIGINT);
    let seen = Seen::from(child.wait_with_output().expect("gdb ends"));
    stdout.read_line(&mut printed).expect("the guest prints");

    assert_eq!(printed, "looping\nreleased\n");
    let debugged = waiting.end(seen);
    debugged.said(&["received signal SIGINT", "in probe::debuggee::debuggee_loop ()", "exited normally"]);
}

#[test]
fn registers_are_shown_with_their_names() {
    let debugged = gdb("return", &["info registers rip cr0 cr3 efer cs fs_base mxcsr", "print $st0", "kill"]);
    debugged.said(&[
        "0x0000000000100000 in _start ()",
        "<_start>",
        "cr0 ",
        "[ PE MP ET NE WP PG ]",
        "cr3            0x80000",
        "[ LME LMA NXE ]",
        "cs             0x8",
        "fs_base        0x0",
        "$1 = 0",
    ]);
}

#[test]
fn a_hardware_breakpoint_stops_at_its_function() {
    needs!(HardwareBreakpoint);
    let debugged = gdb("debuggee", &["hbreak probe::debuggee::add", "continue", "backtrace 1", "kill"]);
    debugged.said(&["Hardware assisted breakpoint 1", "Breakpoint 1, probe::debuggee::add", "#0 "]);
}

#[test]
fn a_watchpoint_fires_or_is_refused_with_a_sentence_and_gdbs_own_works() {
    let start = ["break probe::debuggee::debuggee", "continue"];
    let changed = ["Old value = ", "value: 0", "New value = ", "value: 42"];

    let watch = ["watch probe::debuggee::WATCHED", "continue", "kill"];
    let debugged = gdb("debuggee", &[&start[..], &watch].concat());
    if features().has(Feature::Watchpoint) {
        debugged.said(&changed);
    } else {
        debugged.said(&["Hardware watchpoint 2"]);
        let refused = &debugged.gdb.stderr;
        assert!(refused.contains("Could not insert hardware watchpoint 2"), "{refused}");
        let told = &debugged.vmm.stderr;
        assert!(told.contains("vmm: this host's KVM tells of no data watchpoints"), "{told}");
    }

    let own = ["set can-use-hw-watchpoints 0", "watch probe::debuggee::WATCHED", "continue", "kill"];
    gdb("debuggee", &[&start[..], &own].concat()).said(&changed);
}

#[test]
fn memory_that_is_not_mapped_is_an_error_and_no_end() {
    let debugged = gdb("exit 7", &["x/8xb 0", "x/i $pc", "continue"]);
    assert!(debugged.gdb.stderr.contains("Cannot access memory at address 0x0"), "{:?}", debugged.gdb);
    debugged.said(&["xor    %ebp,%ebp", "exited with code 07]"]);
    assert_eq!(debugged.vmm.code, Some(7));
}

#[test]
fn a_triple_fault_is_a_signal_and_then_the_end() {
    let debugged = gdb("without-idt read-null", &["continue", "backtrace", "continue"]);
    debugged.said(&["received signal SIGSEGV", "exited with code 0146]"]);
    // gdb writes what the target says to stderr.
    assert!(debugged.gdb.stderr.contains("the guest died of a triple fault"), "{:?}", debugged.gdb);
    if features().has(Feature::StateAfterTripleFault) {
        debugged.said(&["received signal SIGSEGV", "in probe::faults::read (address=8)"]);
    }
    assert_eq!(debugged.vmm.code, Some(102), "{:?}", debugged.vmm);
}

#[test]
fn an_exception_is_a_signal_at_the_line_that_raised_it() {
    let debugged = gdb("read-null", &["continue", "backtrace", "continue"]);
    debugged.said(&["received signal SIGSEGV", "in probe::faults::read (address=8)", "in probe::main ()"]);
    debugged.said(&["exited with code 0146]"]);
}

#[test]
fn an_int3_of_the_programs_own_stops_and_is_passed_by_continue() {
    if features().has(Feature::Int3) {
        // Where `int3` raises its exception and KVM does not tell of it, nobody can.
        needs!(SoftwareBreakpoint);
    }
    let debugged = gdb("debuggee-int3", &["continue", "continue"]);
    debugged.said(&["received signal SIGTRAP", "probe::debuggee::debuggee_int3 ()", "exited normally"]);
    assert_eq!(debugged.vmm.stdout, "behind int3\n");
}

#[test]
fn monitor_commands_are_answered() {
    let commands = ["monitor exits", "monitor map", "monitor walk 0x100000", "monitor explain", "kill"];
    let debugged = gdb("return", &commands);
    // gdb writes what the target says to stderr.
    let shown = debugged.gdb.stdout.clone() + &debugged.gdb.stderr;
    for part in ["hypercalls", "page tables", "maps a page of 4 KiB", "the guest stands at RIP 0x100000"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}

#[test]
fn a_detached_guest_runs_on_without_its_breakpoints() {
    let debugged = gdb("debuggee", &["break probe::debuggee::add", "detach"]);
    debugged.said(&["detached"]);
    assert_eq!((debugged.vmm.code, debugged.vmm.stdout.as_str()), (Some(0), "the sum is 42\nx=20 done\n"));
    assert_eq!(debugged.vmm.stderr.lines().count(), 1, "{}", debugged.vmm.stderr);
}

#[test]
fn the_wait_for_a_debugger_says_what_to_type_and_ends_with_the_time_limit_or_ctrl_c() {
    let image = guest("probe");
    let wait = |timeout: &str| {
        let mut command = Command::new(vmm_binary());
        command.arg("run").arg(&image).args(["--gdb=tcp:0", "--timeout", timeout]);
        command
    };
    let seen = Seen::of(&mut wait("200ms"));
    assert_eq!(seen.code, Some(124), "{seen:?}");
    let said = format!("gdb {} -ex 'target remote 127.0.0.1:", image.display());
    assert!(seen.stderr.contains(&said), "{seen:?}");

    let mut child = wait("20s").stderr(Stdio::piped()).spawn().expect("the VMM starts");
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    stderr.read_line(&mut line).expect("the VMM says something");
    send(&child, libc::SIGINT);
    assert_eq!(child.wait().expect("the VMM ends").code(), Some(130));
}

#[test]
fn where_nobody_can_wait_is_said() {
    let seen = crate::harness::vmm_run("probe", &["--gdb=unix:/nonexistent/socket"]);
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(seen.stderr.contains("cannot listen at /nonexistent/socket for a debugger"), "{seen:?}");
    let seen = crate::harness::vmm_run("probe", &["--gdb", "kernel.elf"]);
    assert_eq!(seen.code, Some(2), "{seen:?}");
    assert!(seen.stderr.contains("tcp:PORT, tcp:HOST:PORT or unix:PATH"), "{seen:?}");
}

#[test]
fn xtask_gdb_opens_on_the_program_and_leaves_nothing_behind() {
    let marker = format!("marker-of-{}", std::process::id());
    let mut cargo = workspace::cargo();
    cargo.args([
        "--quiet",
        "xtask",
        "gdb",
        "probe",
        "--batch",
        "-ex",
        "break probe::debuggee::add",
        "-ex",
        "continue",
    ]);
    cargo.args(["-ex", "print point", "-ex", "list", "--timeout", "30s", "--", "debuggee", &marker]);
    let seen = Seen::of(cargo.stdin(Stdio::null()));
    assert_eq!(seen.code, Some(0), "{seen:?}");
    for part in ["in _start ()", "Breakpoint 1, probe::debuggee::add", "Point {x: ", "// line: add"] {
        assert!(seen.stdout.contains(part), "{part}: {seen:?}");
    }
    let is_ours = |entry: &std::fs::DirEntry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|words| String::from_utf8_lossy(&words).contains(&marker))
    };
    let left: Vec<_> = std::fs::read_dir("/proc").expect("/proc").flatten().filter(is_ours).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn xtask_gdb_without_gdb_says_what_to_install() {
    let mut cargo = workspace::cargo();
    let seen = Seen::of(cargo.args(["--quiet", "xtask", "gdb"]).env("RUST_GDB", "/nonexistent/gdb"));
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(seen.stderr.contains("sudo apt install gdb"), "{seen:?}");
}

#[test]
fn what_the_editor_starts_exists() {
    let (launch, tasks) = (json(".vscode/launch.json"), json(".vscode/tasks.json"));
    let named = |list: &Value, key: &str| -> Vec<String> {
        let names = list.as_array().expect("a list").iter();
        names.map(|entry| entry[key].as_str().expect("a name").to_owned()).collect()
    };
    let (names, labels) = (named(&launch["configurations"], "name"), named(&tasks["tasks"], "label"));

    let (guest, vmm) = (guest("01_hello"), vmm_binary());
    for entry in launch["configurations"].as_array().expect("a list") {
        assert!([&guest, &vmm].contains(&&path(&entry["program"])), "{entry}");
        assert!(
            entry["preLaunchTask"].is_null() || labels.iter().any(|label| entry["preLaunchTask"] == **label)
        );
    }
    for compound in launch["compounds"].as_array().expect("a list") {
        for name in compound["configurations"].as_array().expect("a list") {
            assert!(names.iter().any(|own| name == own), "{name}");
        }
    }
    for task in tasks["tasks"].as_array().expect("a list") {
        let command = &task["command"];
        assert!(command.is_null() || command == "cargo" || path(command) == vmm, "{task}");
        for label in task["dependsOn"].as_array().into_iter().flatten() {
            assert!(labels.iter().any(|own| label == own), "{label}");
        }
    }
    // What a task waits for is what the VMM says.
    assert!(read("vmm/src/commands/run.rs").contains("vmm: the guest waits at its first instruction"));
    let ends = &tasks["tasks"][3]["problemMatcher"]["background"]["endsPattern"];
    assert_eq!(ends, "^vmm: the guest waits at its first instruction");
}

fn json(file: &str) -> Value {
    serde_json::from_str(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A path in the editor's words, with what its settings say.
fn path(value: &Value) -> std::path::PathBuf {
    let settings = read(".vscode/settings.json");
    let guest = settings.split_once("\"duet.guest\": \"").expect("the setting is there").1;
    let guest = guest.split_once('"').expect("a string").0;
    let text = value.as_str().expect("a path").replace("${config:duet.guest}", guest);
    let target = workspace::target_directory();
    match text.strip_prefix("${workspaceFolder}/target/") {
        Some(rest) => target.join(rest),
        None => Path::new(&text).to_owned(),
    }
}
