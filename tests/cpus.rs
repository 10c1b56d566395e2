//! Machines of several vCPUs: how they start, end, and are told of.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use vmm::debug::{CoreFile, Doing};
use vmm::observe::{Stats, Timeline};
use vmm::{Console, KernelSource, StopReason, StopRequest, VcpuCount, VcpuId, Vm};

use crate::harness::{Boot, Seen, guest, optimised_guest, patiently, probe, send, vmm_binary, vmm_run};

/// What is promised between an end and the moment when all stand, and what a loaded machine may add to it.
const PROMPT: Duration = Duration::from_millis(100);
const NOISE: Duration = Duration::from_millis(900);

fn vcpus(count: u64) -> VcpuCount {
    VcpuCount::new(count).expect("a machine can have so many")
}

fn vcpu(number: u64) -> VcpuId {
    VcpuId::new(number).expect("a machine can have such a vCPU")
}

fn on(count: u64, deed: &str) -> Boot {
    probe(deed).with(|config| config.vcpus = vcpus(count))
}

#[test]
fn cpus_that_are_started_count_together() {
    assert_eq!(on(4, "cpus-count").run().succeeded(), "3 CPUs have counted to 300\n");
}

#[test]
fn sixty_four_cpus_start_and_end() {
    let with_optimised =
        |boot: Boot| boot.with(|config| config.kernel = KernelSource::File(optimised_guest("probe")));
    assert_eq!(with_optimised(on(64, "cpus-count")).run().succeeded(), "63 CPUs have counted to 6300\n");
}

#[test]
fn lines_of_eight_cpus_are_never_torn() {
    let printed = on(8, "cpus-lines").run().succeeded();
    let (mut short, mut long) = ([0; 8], [0; 8]);
    let dots = ".".repeat(600);
    for line in printed.lines() {
        let number = line.get(..1).expect("no line is empty");
        let counts = if line.contains('.') { &mut long } else { &mut short };
        let whole = match line.contains('.') {
            true => format!("{number}{dots}{number}{dots}{number}"),
            false => format!("{number} is short"),
        };
        assert_eq!(line, whole, "a line is torn");
        counts[number.parse::<usize>().expect("the number of a CPU")] += 1;
    }
    assert_eq!((short, long), ([5; 8], [5; 8]));
}

#[test]
fn one_cpus_death_stops_all_and_names_it() {
    let finished = on(4, "cpus-die 2").run();
    finished.stopped_by(&StopReason::TripleFault);
    assert_eq!(finished.report.vcpu, Some(vcpu(2)));
    assert!(finished.report.to_string().contains("triple fault, on vCPU 2"), "{}", finished.report);

    let diagnosis = finished.vm.diagnose(&finished.report);
    assert_eq!(diagnosis.vcpu, Some(vcpu(2)));
    assert!(diagnosis.headline().contains(", on vCPU 2"), "{diagnosis}");
    let others: Vec<_> = diagnosis.others.iter().map(|other| other.vcpu.number()).collect();
    assert_eq!(others, [0, 1, 3]);
    let Doing::Running(place) = &diagnosis.others[2].doing else { panic!("it spins: {diagnosis}") };
    assert!(place.contains("probe::cpus::spin at guest-kernel/src/bin/probe/cpus.rs:"), "{place}");
}

#[test]
fn the_end_of_one_cpu_is_that_of_its_machine_only_when_it_is_no_halt() {
    let finished = on(4, "cpus-exit 3").run();
    finished.stopped_by(&StopReason::Exited { code: 3 });
    assert_eq!(finished.report.vcpu, Some(vcpu(3)));

    let finished = on(4, "cpus-halt").run();
    finished.stopped_by(&StopReason::Halted { interrupts_enabled: false });
    assert_eq!(finished.report.vcpu, Some(vcpu(0)), "the first vCPU's HLT is told");
}

#[test]
fn a_cpu_that_has_halted_can_be_started_again() {
    assert_eq!(on(2, "cpus-restart").run().succeeded(), "started 100 times\n");
}

#[test]
fn a_start_that_cannot_be_is_an_answer() {
    for (count, start, answer) in [
        (1, "0", "Err(AlreadyExists)"),
        (1, "1", "Err(NotFound)"),
        (2, "0 1 1 1", "Err(AlreadyExists)"),
        (2, "2", "Err(NotFound)"),
        (2, "64", "Err(NotFound)"),
        (2, "256", "Err(NotFound)"),
        (2, "18446744073709551615", "Err(NotFound)"),
    ] {
        let printed = on(count, &format!("start-cpu {start}")).run().succeeded();
        assert_eq!(printed.trim_end(), answer, "{count} vCPUs, start-cpu {start}");
    }
}

#[test]
fn a_wild_start_is_the_death_of_that_cpu_at_worst() {
    for start in ["1 0", "1 1 1 1", "1 1048576", "1 9223372036854775808 1", "1 3221225472 1 1"] {
        // The first goes on, so either end may come first.
        let report = on(2, &format!("start-cpu {start}")).run().report;
        let has_ended = matches!(report.stop, StopReason::Exited { code: 0 });
        assert!(has_ended || report.vcpu == Some(vcpu(1)), "{start}: {report}");
    }
}

/// Where KVM keeps the lives of CPUs, a request to start is answered by the thread of the CPU that it is for.
#[test]
fn two_cpus_that_would_start_each_other_do_not_wait_for_each_other() {
    for interrupts in [vmm::Interrupts::On, vmm::Interrupts::Off] {
        let boot = on(2, "cpus-duel").with(|config| config.interrupts = interrupts);
        assert_eq!(boot.run().succeeded(), "both have survived\n", "{interrupts:?}");
    }
}

#[test]
fn with_interrupt_controllers_cpus_are_told_of_all_the_same() {
    let with_controllers =
        |count, deed: &str| on(count, deed).with(|config| config.interrupts = vmm::Interrupts::On);
    assert_eq!(with_controllers(4, "cpus-count").run().succeeded(), "3 CPUs have counted to 300\n");

    let finished = with_controllers(3, "cpus-exit 1").run();
    finished.stopped_by(&StopReason::Exited { code: 1 });
    assert_eq!(finished.report.vcpu, Some(vcpu(1)));

    let limit = Duration::from_millis(400);
    let finished = with_controllers(4, "start-cpu 1 0").with(|config| config.timeout = Some(limit)).run();
    let diagnosis = finished.vm.diagnose(&finished.report);
    let doing = |number: usize| diagnosis.others.iter().find(|other| other.vcpu.index() == number);
    assert_eq!(doing(3).map(|other| &other.doing), Some(&Doing::Unstarted), "{diagnosis}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn whatever_four_cpus_ask_at_once_the_host_can_do_its_work(seed in 1..u32::MAX) {
        // They also start one another wildly, so that any of them may die.
        let finished = on(4, &format!("cpus-hostile {seed}")).run();
        prop_assert!(!matches!(finished.report.stop, StopReason::TimedOut { .. }), "{}", finished.report);
    }
}

#[test]
fn a_time_limit_stops_all_cpus() {
    for deed in ["cpus-spin", "cpus-idle", "cpus-read"] {
        let limit = Duration::from_millis(400);
        let mut boot = on(8, deed).with(|config| config.timeout = Some(limit));
        if deed == "cpus-read" {
            // Nobody ever types into this end.
            let (reader, writer) = std::io::pipe().expect("a pipe");
            std::mem::forget(writer);
            boot.config.input = vmm::Input::file(std::os::fd::OwnedFd::from(reader).into());
        }
        let start = Instant::now();
        let finished = boot.run();
        let elapsed = start.elapsed();
        finished.stopped_by(&StopReason::TimedOut { limit });
        assert!(elapsed < limit + patiently(PROMPT + NOISE), "{deed}: {elapsed:?}");
    }
}

#[test]
fn ctrl_c_stops_all_cpus_and_tells_where_they_were() {
    let child = Command::new(vmm_binary())
        .args(["run".as_ref(), guest("probe").as_os_str()])
        .args(["--cpus", "4", "--timeout", "20s", "--", "cpus-spin"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the VMM starts");
    std::thread::sleep(patiently(Duration::from_millis(500)));
    send(&child, libc::SIGINT);
    let seen = Seen::from(child.wait_with_output().expect("the VMM ends"));
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(130), "all spin\n"), "{seen:?}");
    assert!(seen.stderr.contains("interrupted, on vCPU ") && seen.stderr.contains("\nothers: "), "{seen:?}");
}

#[test]
fn no_stop_is_lost_however_it_falls() {
    for delay_us in (0..3000).step_by(100) {
        let mut vm = Vm::build(on(4, "cpus-spin").config).expect("KVM");
        let handle = vm.stop_handle();
        let stopper = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(delay_us));
            handle.stop(StopRequest::Interrupt);
            Instant::now()
        });
        let report = vm.run().expect("the host works");
        let stopped = stopper.join().expect("the thread only sleeps and stops");
        let took = stopped.elapsed();
        assert!(took < patiently(PROMPT + NOISE), "{delay_us} µs: {took:?}");
        assert_eq!(report.stop, StopReason::Interrupted, "{delay_us} µs");
    }
}

#[test]
fn a_paused_machine_goes_on_with_all_its_cpus() {
    let mut vm = Vm::build(on(4, "cpus-spin").config).expect("KVM");
    let handle = vm.stop_handle();
    let is_done = Arc::new(AtomicBool::new(false));
    // Pauses that come while the machine stands are one, so it goes on asking.
    let pauser = std::thread::spawn({
        let is_done = Arc::clone(&is_done);
        move || {
            while !is_done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(30));
                handle.pause();
            }
        }
    });
    for _ in 0..5 {
        assert_eq!(vm.run().expect("the host works").stop, StopReason::Paused);
    }
    is_done.store(true, Ordering::Relaxed);
    pauser.join().expect("the thread only sleeps and pauses");
}

/// Threads and open files of this process.
fn held() -> (usize, usize) {
    let count = |folder| fs::read_dir(folder).expect("proc is mounted").count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

#[test]
fn machines_that_come_and_go_leave_no_thread_and_no_file() {
    // In a process of its own, where no other test starts threads.
    if std::env::var_os("DUET_COUNTS_THREADS").is_none() {
        let own = std::env::current_exe().expect("the test's program");
        let name = "cpus::machines_that_come_and_go_leave_no_thread_and_no_file";
        let output = Command::new(own).args(["--exact", name]).env("DUET_COUNTS_THREADS", "1").output();
        let output = output.expect("the test's program starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    on(8, "cpus-count").run().succeeded();
    let before = held();
    for _ in 0..20 {
        on(8, "cpus-count").run().succeeded();
        on(8, "cpus-die 3").run();
        drop(Vm::build(on(8, "cpus-spin").config).expect("KVM"));
    }
    assert_eq!(held(), before);
}

#[test]
fn walk_and_map_look_through_the_tables_of_the_cpu_that_is_asked_for() {
    let image = guest("probe");
    let image = image.to_str().expect("a path of text");
    let guest = ["--cpus", "4", "--", "cpus-exit", "3"];
    for (own, whose) in [(&[][..], "vCPU 3"), (&["--cpu", "1"], "vCPU 1")] {
        let walk = [&["walk", "--at-stop"][..], own, &[image, "0x100000"], &guest].concat();
        let seen = crate::harness::vmm(&walk);
        assert!(seen.stdout.contains(&format!("  CR3  0x80000 of {whose}\n")), "{seen:?}");
        let map = [&["map", "--at-stop"][..], own, &[image], &guest].concat();
        let seen = crate::harness::vmm(&map);
        assert!(seen.stdout.contains(&format!("CR3 of {whose} = 0x80000")), "{seen:?}");
    }
    let seen = crate::harness::vmm(&["map", "--at-stop", "--cpu", "1", image, "--", "return"]);
    assert!(seen.stderr.contains("none is number 1"), "{seen:?}");
}

#[test]
fn a_debugger_is_refused_in_one_sentence() {
    let seen = vmm_run("probe", &["--cpus", "2", "--gdb", "--", "return"]);
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(
        seen.stderr
            .contains("a debugger follows one vCPU, and this machine has 2; leave out --gdb or --cpus"),
        "{seen:?}"
    );
}

#[test]
fn a_number_of_cpus_that_cannot_be_is_refused() {
    for wrong in ["0", "65", "many"] {
        let seen = vmm_run("probe", &["--cpus", wrong]);
        assert_eq!(seen.code, Some(2), "{seen:?}");
        assert!(seen.stderr.contains("write one from 1 to 64"), "{seen:?}");
    }
}

#[test]
fn trace_stats_and_timeline_tell_the_cpus_apart() {
    let seen = vmm_run("probe", &["--cpus", "2", "--trace=hypercall", "--", "cpus-calls"]);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.stderr.lines().any(|line| line.contains(" cpu1  ") && line.contains("Log {")), "{seen:?}");

    let (console, _) = Console::capture();
    let config = on(2, "cpus-calls").with(|config| config.console = console).config;
    let mut vm = Vm::build(config).expect("KVM");
    let drawn = Sink::default();
    let mut observers = (Stats::new(&vm), Timeline::new(&vm, drawn.clone()));
    vm.run_observed(&mut observers).expect("the host works");
    let (stats, timeline) = observers;
    timeline.finish().expect("memory");

    let summary = stats.summary(&vm.symbols());
    let rows: Vec<_> = summary.vcpus.iter().map(|row| row.vcpu.number()).collect();
    assert_eq!(rows, [0, 1]);
    assert_eq!(summary.vcpus.iter().map(|row| row.tally.exits).sum::<u64>(), summary.total.exits);

    let events: serde_json::Value = serde_json::from_slice(&drawn.bytes()).expect("JSON");
    let events = events.as_array().expect("a list").clone();
    for (track, vcpu) in [(1, "vCPU 0"), (2, "vCPU 1")] {
        let on_track: Vec<_> = events.iter().filter(|event| event["tid"] == track).collect();
        assert!(on_track.iter().any(|event| event["args"]["name"] == vcpu));
        assert!(on_track.iter().any(|event| event["name"] == "guest"));
    }
    // A span that the second CPU has marked is on its track, and is closed.
    let spans = |phase| events.iter().filter(move |event| event["ph"] == phase && event["tid"] == 2).count();
    assert_eq!((spans("B"), spans("E")), (1, 1));
}

/// Memory that a timeline is written to.
#[derive(Clone, Default)]
struct Sink(Arc<std::sync::Mutex<Vec<u8>>>);

impl Sink {
    fn bytes(&self) -> Vec<u8> {
        self.0.lock().expect("nobody panics with it").clone()
    }
}

impl std::io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics with it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_core_file_has_a_thread_for_every_started_cpu() {
    let finished = on(4, "cpus-die 2").run();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("core.elf");
    let file = CoreFile::create(&path).expect("a new file");
    file.write(&finished.vm, &finished.report).expect("the folder can be written");

    // NT_PRSTATUS: 12 bytes of header, the name "CORE", 32 bytes, and the thread's number.
    let bytes = fs::read(&path).expect("it was written");
    let header = [5, 0, 0, 0, 80, 1, 0, 0, 1, 0, 0, 0, b'C', b'O', b'R', b'E', 0, 0, 0, 0];
    let threads: Vec<u8> = bytes
        .windows(header.len() + 36)
        .filter(|window| window.starts_with(&header))
        .map(|window| window[header.len() + 32])
        .collect();
    assert_eq!(threads, [3, 1, 2, 4], "the one that died comes first");
}

#[test]
fn embedding_programs_choose_the_number_of_cpus() {
    let (console, output) = Console::capture();
    let mut config = vmm::VmConfig::new(vmm::KernelSource::File(guest("probe")));
    config.vcpus = vcpus(3);
    config.console = console;
    config.arguments = vec!["cpus-count".into()];
    let mut vm = Vm::build(config).expect("KVM");
    assert_eq!(vm.vcpu_count().get(), 3);
    assert_eq!(vm.run().expect("the host works").stop, StopReason::Exited { code: 0 });
    assert_eq!(output.text(), "2 CPUs have counted to 200\n");
}
