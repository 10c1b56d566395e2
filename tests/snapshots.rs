//! Snapshots: whoever goes on from one does what a run does that nobody disturbs.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use shared_abi::{Gpa, Gva};
use vmm::debug::CpuState;
use vmm::exit::Exit;
use vmm::observe::{ExitCounts, Observer};
use vmm::snapshot::file::{FileError, repair_checksums};
use vmm::snapshot::{Pool, Surroundings, Uncapturable};
use vmm::vcpu::Place;
use vmm::{
    Captured, Console, Contract, Flat, Grant, GrantMode, KernelSource, Limits, Snapshot, SnapshotCalls,
    Start, StartMode, StopHandle, StopReason, Vm, VmConfig,
};

use crate::harness::{Seen, boot, optimised_guest, patiently, probe, vmm, vmm_run};

/// A machine about to do `deed`, and what it prints.
fn machine(deed: &str, change: impl FnOnce(&mut VmConfig)) -> (Vm, Captured) {
    let (console, captured) = Console::capture();
    let mut config = probe(deed).config;
    config.kernel = KernelSource::File(optimised_guest("probe"));
    config.console = console;
    change(&mut config);
    (Vm::build(config).expect("the machine can be built"), captured)
}

/// All that a guest leaves behind.
struct End {
    stop: StopReason,
    state: Vec<CpuState>,
    memory: Vec<u8>,
}

impl End {
    fn of(vm: &mut Vm) -> Self {
        let stop = vm.run().expect("the host works").stop;
        let state = vm.vcpus().map(|vcpu| CpuState::of(vcpu).expect("registers")).collect();
        let mut memory = vec![0; vm.memory().size().bytes() as usize];
        vm.memory().read(Gpa(0), &mut memory).expect("all of it is RAM");
        Self { stop, state, memory }
    }

    /// Compares without printing all of RAM.
    #[track_caller]
    fn expect(&self, expected: &Self, who: &str) {
        assert_eq!((&self.stop, &self.state), (&expected.stop, &expected.state), "{who}");
        if self.memory != expected.memory {
            let differs = self.memory.iter().zip(&expected.memory).position(|(own, other)| own != other);
            panic!("{who}: RAM differs from {differs:x?} on");
        }
    }
}

/// Asks for a pause at an exit: the run ends when that is answered.
struct PauseAt {
    exit: u64,
    handle: StopHandle,
    counts: ExitCounts,
}

impl Observer for PauseAt {
    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.counts.on_exit(exit, place);
        if self.counts.total() == self.exit {
            self.handle.pause();
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

/// Runs until so many exits are answered.
fn run_to(vm: &mut Vm, exit: u64) {
    let mut pause = PauseAt { exit, handle: vm.stop_handle(), counts: ExitCounts::default() };
    let report = vm.run_observed(&mut pause).expect("the host works");
    assert_eq!(report.stop, StopReason::Paused, "at exit {exit}");
}

/// A new machine from `snapshot`, and what it prints.
fn spawn(snapshot: &Snapshot) -> (Vm, Captured) {
    let (console, captured) = Console::capture();
    let surroundings = Surroundings { console, ..Surroundings::default() };
    (snapshot.spawn(surroundings).expect("a machine like the first"), captured)
}

/// Numbers by chance, the same ones each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A walk that nobody disturbs: what it prints, its exits, and its end.
fn undisturbed(deed: &str) -> (Vec<u8>, u64, End) {
    let (mut vm, printed) = small(deed);
    let mut counts = ExitCounts::default();
    let stop = vm.run_observed(&mut counts).expect("the host works").stop;
    assert_eq!(stop, StopReason::Exited { code: 0 }, "{}", printed.text());
    let (mut vm, _) = small(deed);
    (printed.bytes(), counts.total(), End::of(&mut vm))
}

fn small(deed: &str) -> (Vm, Captured) {
    machine(deed, |config| config.memory = "4M".parse().expect("a size"))
}

/// Goes on from a snapshot taken at `exit`, in all ways there are.
fn go_on_in_all_ways(deed: &str, exit: u64, walk: &(Vec<u8>, u64, End), chance: &mut Chance) {
    let (text, exits, expected) = walk;
    let case = |who: &str| format!("{deed}, kept at exit {exit}: {who}");
    let (mut vm, printed) = small(deed);
    run_to(&mut vm, exit);
    let snapshot = vm.snapshot().expect("it stands");
    let rest = text.get(printed.bytes().len()..).expect("no more than all").to_owned();

    End::of(&mut vm).expect(expected, &case("the original"));
    assert_eq!(&printed.bytes(), text);

    vm.restore(&snapshot).expect("it is its own");
    // Once more, from the middle of it.
    let left = exits - exit;
    if left > 1 {
        run_to(&mut vm, 1 + chance.below(left - 1));
        vm.restore(&snapshot).expect("it is its own");
    }
    let before = printed.bytes().len();
    End::of(&mut vm).expect(expected, &case("in place"));
    assert_eq!(printed.bytes().get(before..), Some(rest.as_slice()));

    let (mut other, printed) = spawn(&snapshot);
    End::of(&mut other).expect(expected, &case("a new machine"));
    assert_eq!(printed.bytes(), rest);

    let file = bytes_of(&snapshot);
    let read = Snapshot::read_from(&mut file.as_slice(), file.len() as u64).expect("it was just written");
    let (mut third, printed) = spawn(&read);
    End::of(&mut third).expect(expected, &case("through a file"));
    assert_eq!(printed.bytes(), rest);
}

/// What stands in its file.
fn bytes_of(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot.write_to(&mut bytes).expect("memory");
    bytes
}

/// How many cases are tried: fewer where everything is slower.
fn cases(wanted: u32) -> u32 {
    let slowness = patiently(Duration::from_secs(1)).as_secs() as u32;
    (wanted / slowness.pow(2)).max(10)
}

#[test]
fn who_goes_on_from_a_snapshot_does_what_the_undisturbed_run_does() {
    let mut chance = Chance(0x5EED);
    const EXITS_A_WALK: u32 = 10;
    for _ in 0..cases(500) / EXITS_A_WALK {
        let deed = format!("wander {} 40", chance.below(1 << 31));
        let walk = undisturbed(&deed);
        for _ in 0..EXITS_A_WALK {
            let exit = 1 + chance.below(walk.1 - 1);
            go_on_in_all_ways(&deed, exit, &walk, &mut chance);
        }
    }
}

#[test]
fn a_machine_of_several_cpus_goes_on_with_all_of_them() {
    for delay_us in [300, 1000, 3000, 9000] {
        let (mut vm, _) = machine("cpus-count", |config| config.vcpus = "4".parse().expect("a count"));
        let Some(snapshot) = keep_after(&mut vm, Duration::from_micros(delay_us)) else { continue };
        for mut vm in [vm, spawn(&snapshot).0, spawn(&snapshot).0] {
            let (console, printed) = Console::capture();
            vm.surround(Surroundings { console, ..Surroundings::default() }).expect("the host works");
            let report = vm.run().expect("the host works");
            assert_eq!(report.stop, StopReason::Exited { code: 0 }, "{}", printed.text());
            assert_eq!(printed.text(), "3 CPUs have counted to 300\n", "after {delay_us} µs");
        }
    }
}

/// Runs for so long and keeps what there is; `None` when the run was over before.
fn keep_after(vm: &mut Vm, delay: Duration) -> Option<Snapshot> {
    let handle = vm.stop_handle();
    let pauser = std::thread::spawn(move || {
        std::thread::sleep(delay);
        handle.pause();
    });
    let stop = vm.run().expect("the host works").stop;
    pauser.join().expect("the thread only sleeps and pauses");
    (stop == StopReason::Paused).then(|| vm.snapshot().expect("it stands"))
}

#[test]
fn a_guest_that_sleeps_wakes_in_every_copy() {
    let (console, _) = Console::capture();
    let mut boot = boot("probe_interrupts").arguments(&["sleep", "200"]);
    boot.config.console = console;
    let mut vm = Vm::build(boot.config).expect("KVM");
    let snapshot = keep_after(&mut vm, Duration::from_millis(100)).expect("it sleeps for longer");
    let copies = [vm, spawn(&snapshot).0, spawn(&snapshot).0].map(|mut vm| {
        let (console, printed) = Console::capture();
        vm.surround(Surroundings {
            console,
            timeout: Some(patiently(Duration::from_secs(20))),
            ..Surroundings::default()
        })
        .expect("the host works");
        std::thread::spawn(move || (vm.run().expect("the host works").stop, printed.text()))
    });
    for copy in copies {
        let (stop, printed) = copy.join().expect("no panic");
        assert_eq!(stop, StopReason::Exited { code: 0 }, "{printed}");
        let slept: u64 = printed.trim().parse().expect("microseconds");
        assert!(slept >= 200_000, "{slept}");
    }
}

const ORIGINAL: &str = "asked, original: same identity, time goes on, random numbers differ\n";

fn copy(number: u64) -> String {
    format!("asked, copy {number}: another identity, time goes on, random numbers differ\n")
}

#[test]
fn a_guest_that_asks_is_told_which_copy_it_is() {
    let (mut vm, printed) = machine("snapshot", |config| config.snapshots = SnapshotCalls::EndTheRun);
    assert_eq!(vm.run().expect("the host works").stop, StopReason::SnapshotAsked);
    let snapshot = vm.snapshot().expect("it asked");
    let end =
        |vm: &mut Vm| assert_eq!(vm.run().expect("the host works").stop, StopReason::Exited { code: 0 });
    end(&mut vm);
    assert_eq!(printed.text(), ORIGINAL);

    let rest = |number| copy(number).trim_start_matches("asked, ").to_owned();
    let (mut first, printed_first) = spawn(&snapshot);
    vm.restore(&snapshot).expect("it is its own");
    let (mut third, printed_third) = spawn(&snapshot);
    [&mut first, &mut vm, &mut third].into_iter().for_each(end);
    assert_eq!((printed_first.text(), printed_third.text()), (rest(1), rest(3)));
    assert_eq!(printed.text(), ORIGINAL.to_owned() + &rest(2));
}

#[test]
fn without_somebody_who_keeps_it_a_guest_is_refused() {
    let console = probe("snapshot").run().succeeded();
    assert_eq!(console, "asked, NotGranted\n");
}

#[test]
fn a_machine_with_open_files_or_channels_is_not_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("file"), "text").expect("writable");
    let grant =
        Grant { path: directory.path().to_owned(), mode: GrantMode::ReadOnly, limits: Limits::default() };
    let (mut vm, printed) = machine("snapshot-with-file", |config| {
        config.snapshots = SnapshotCalls::EndTheRun;
        config.directory = Some(grant);
    });
    assert_eq!(vm.run().expect("the host works").stop, StopReason::SnapshotAsked);
    assert_eq!(printed.text(), "open, NotPermitted\nclosed, ");
    vm.snapshot().expect("the file is closed");

    let (mut vm, _) = machine("flood-ring", |_| {});
    let why = keep_refused(&mut vm, Duration::from_millis(100));
    assert_eq!(why, Uncapturable::OpenChannels(1));
}

fn keep_refused(vm: &mut Vm, delay: Duration) -> Uncapturable {
    let handle = vm.stop_handle();
    let pauser = std::thread::spawn(move || {
        std::thread::sleep(delay);
        handle.pause();
    });
    assert_eq!(vm.run().expect("the host works").stop, StopReason::Paused);
    pauser.join().expect("the thread only sleeps and pauses");
    match vm.snapshot() {
        Err(vmm::Error::NoSnapshot(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_machine_goes_back_to_snapshots_of_its_own_only_and_to_any_of_them() {
    let deed = "wander 3 40";
    let (mut vm, _) = small(deed);
    run_to(&mut vm, 5);
    let early = vm.snapshot().expect("it stands");
    run_to(&mut vm, 10);
    let late = vm.snapshot().expect("it stands");
    let expected = End::of(&mut vm);
    for snapshot in [&early, &late, &early] {
        vm.restore(snapshot).expect("it is its own");
        End::of(&mut vm).expect(&expected, "back");
    }
    let (mut other, _) = small(deed);
    assert!(matches!(other.restore(&early), Err(vmm::Error::ForeignSnapshot)));
}

#[test]
fn a_machine_that_was_stopped_by_its_time_limit_goes_back() {
    let (mut vm, _) = machine("spin", |config| config.timeout = Some(Duration::from_millis(50)));
    let snapshot = vm.snapshot().expect("it has not started");
    for _ in 0..3 {
        assert!(matches!(vm.run().expect("the host works").stop, StopReason::TimedOut { .. }));
        vm.restore(&snapshot).expect("it is its own");
    }
}

#[test]
fn a_pool_gives_machines_to_any_number_of_threads() {
    let (mut vm, _) = machine("wander 1 10", |_| {});
    run_to(&mut vm, 3);
    let expected = End::of(&mut vm).stop;
    let (mut vm, _) = machine("wander 1 10", |_| {});
    run_to(&mut vm, 3);
    let pool = Arc::new(Pool::new(vm.snapshot().expect("it stands"), 4).expect("a thread"));
    let users = [(); 3].map(|()| {
        let (pool, expected) = (Arc::clone(&pool), expected.clone());
        std::thread::spawn(move || {
            for _ in 0..10 {
                let (console, printed) = Console::capture();
                let surroundings = Surroundings { console, ..Surroundings::default() };
                let mut vm = pool.take(surroundings).expect("a machine");
                assert_eq!(vm.run().expect("the host works").stop, expected);
                assert!(!printed.text().is_empty());
            }
        })
    });
    users.into_iter().for_each(|user| user.join().expect("no panic"));
}

#[test]
fn the_program_keeps_a_guest_in_a_file_and_goes_on_from_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("kept");
    let path = file.to_str().expect("UTF-8");

    let seen = vmm_run("probe", &["--snapshot-to", path, "--", "snapshot"]);
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), ORIGINAL), "{seen:?}");
    for _ in 0..2 {
        let seen = vmm(&["run", "--restore", path]);
        assert_eq!((seen.code, format!("asked, {}", seen.stdout)), (Some(0), copy(1)), "{seen:?}");
    }

    let seen = vmm_run("probe", &["--snapshot-to", path, "--timeout", "300ms", "--", "spin"]);
    assert_eq!(seen.code, Some(124), "{seen:?}");
    let seen = vmm(&["run", "--restore", "--timeout", "300ms", path]);
    assert!(seen.code == Some(124) && seen.stderr.contains("in probe::ends::spin at "), "{seen:?}");

    let seen = vmm_run("probe", &["--snapshot-to", path, "--", "return"]);
    assert!(seen.code == Some(0) && seen.stderr.contains("asked for no snapshot"), "{seen:?}");
    let seen = vmm(&["run", "--restore", "--memory", "32M", path]);
    assert_eq!(seen.code, Some(2), "{seen:?}");
}

/// The file of a machine as small as they come.
fn smallest_file() -> Vec<u8> {
    let mut config = VmConfig::new(KernelSource::Bytes([0xF4].as_slice().into()));
    config.start =
        Start { mode: StartMode::Real, flat: Some(Flat { load_at: Gpa(0x8000), entry: Gva(0x8000) }) };
    config.contract = Contract::None;
    config.memory = "2M".parse().expect("a size");
    let mut vm = Vm::build(config).expect("KVM");
    bytes_of(&vm.snapshot().expect("it has not started"))
}

/// What is wrong with a file of these bytes.
fn refused(bytes: &[u8]) -> FileError {
    match Snapshot::read_from(&mut { bytes }, bytes.len() as u64) {
        Err(error) => error,
        Ok(_) => panic!("it was read"),
    }
}

#[test]
fn a_file_cut_anywhere_is_refused_and_so_is_one_with_more_in_it() {
    let file = smallest_file();
    for size in 0..file.len() {
        let error = refused(&file[..size]);
        let is_right = match size {
            0 => matches!(error, FileError::NotASnapshot),
            _ => matches!(error, FileError::WrongSize { .. }),
        };
        assert!(is_right, "{size} bytes: {error}");
        // It may also become shorter while it is read.
        if size % 97 == 0 || size < 256 {
            let cut = Snapshot::read_from(&mut &file[..size], file.len() as u64);
            assert!(matches!(cut, Err(FileError::Read(_))), "{size} bytes: {cut:?}");
        }
    }
    assert!(matches!(refused(&[file.as_slice(), b"x"].concat()), FileError::WrongSize { .. }));
}

#[test]
fn a_file_with_a_flipped_bit_is_refused() {
    let file = smallest_file();
    for bit in (0..64 * 8).chain((64 * 8..file.len() * 8).step_by(101)) {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let error = refused(&damaged);
        let is_right = match bit / 8 {
            0..8 => matches!(error, FileError::NotASnapshot),
            8..12 => matches!(error, FileError::OtherVersion(_)),
            _ => matches!(error, FileError::Damaged(_)),
        };
        assert!(is_right, "bit {bit}: {error}");
    }
}

#[test]
fn a_file_of_another_cpu_or_of_no_machine_is_refused_with_the_reason() {
    let file = smallest_file();
    let altered = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len(), "sizes stay");
        let at = file.windows(from.len()).position(|window| window == from.as_bytes()).expect("it is there");
        let mut altered = file.clone();
        altered[at..at + to.len()].copy_from_slice(to.as_bytes());
        repair_checksums(&mut altered);
        refused(&altered).to_string()
    };
    let vendor = if file.windows(12).any(|window| window == b"AuthenticAMD") {
        altered("AuthenticAMD", "GenuineIntel")
    } else {
        altered("GenuineIntel", "AuthenticAMD")
    };
    assert!(vendor.contains("another CPU"), "{vendor}");
    for (from, to, complaint) in [
        ("\"memory\":2097152", "\"memory\":2097153", "not whole pages"),
        ("\"memory\":2097152", "\"memory\":1048576", "too little"),
        ("\"page_size\":2097152", "\"page_size\":2097153", "no pages of 2097153 bytes"),
        ("\"mode\":0", "\"mode\":9", "no mode 9"),
        ("\"stopped\":0", "\"stopped\":1", "vCPUs that it has not"),
        ("\"address_bits\"", "\"address_bots\"", "unknown field"),
    ] {
        let error = altered(from, to);
        assert!(error.contains(complaint), "{to}: {error}");
    }
}

/// Runs `body` in a process of its own, in which no other test counts: this test, started once more.
fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "DUET_TEST_ALONE";
    if std::env::var(ALONE).is_ok_and(|own| own == test) {
        return body();
    }
    let own = std::env::current_exe().expect("this program has a path");
    let name = format!("snapshots::{test}");
    let seen = Seen::of(Command::new(own).args(["--exact", &name, "--nocapture"]).env(ALONE, test));
    assert_eq!(seen.code, Some(0), "{}\n{}", seen.stdout, seen.stderr);
    assert!(seen.stdout.contains("1 passed"), "{seen:?}");
}

/// What this process has of memory, of what it shares its share; in bytes.
fn proportional_size() -> u64 {
    rollup("Pss:")
}

/// A line of /proc/self/smaps_rollup.
fn rollup(name: &str) -> u64 {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("proc is mounted");
    let line = rollup.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes") << 10
}

/// Lets this process have as many files open as it may.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: Both calls read or write one `rlimit`, which this is.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_cur = limit.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
    }
}

#[test]
fn a_thousand_machines_cost_little_beside_what_they_write() {
    alone("a_thousand_machines_cost_little_beside_what_they_write", || {
        const MOST: u64 = 100 << 10;
        raise_file_limit();
        let (mut vm, _) = machine("wander 5 20", |_| {});
        run_to(&mut vm, 10);
        let snapshot = vm.snapshot().expect("it stands");
        let expected = End::of(&mut vm).stop;
        let count = 2 * u64::from(cases(500));

        let before = proportional_size();
        let mut machines: Vec<_> = (0..count).map(|_| spawn(&snapshot).0).collect();
        let waiting = proportional_size().saturating_sub(before) / count;
        for vm in &mut machines {
            assert_eq!(vm.run().expect("the host works").stop, expected);
        }
        let written: u64 = machines.iter().map(|vm| vm.memory().own_bytes()).sum();
        let done = proportional_size().saturating_sub(before).saturating_sub(written) / count;

        println!(
            "{count} machines: {waiting} bytes each, {done} when run, beside {} written",
            written / count
        );
        assert!(waiting < MOST && done < MOST, "{waiting} and {done} bytes a machine");
    });
}

/// Open files, mappings, and bytes of memory that this process alone has.
fn held() -> [u64; 3] {
    let fds = fs::read_dir("/proc/self/fd").expect("proc is mounted").count() as u64;
    let maps = fs::read_to_string("/proc/self/maps").expect("proc is mounted").lines().count() as u64;
    [fds, maps, rollup("Anonymous:")]
}

#[test]
fn ten_thousand_machines_one_after_the_other_leave_nothing_behind() {
    alone("ten_thousand_machines_one_after_the_other_leave_nothing_behind", || {
        let (mut vm, _) = machine("wander 5 2", |_| {});
        run_to(&mut vm, 1);
        let snapshot = vm.snapshot().expect("it stands");
        let expected = End::of(&mut vm).stop;
        let cycle = |number: u32| {
            let mut vm = match number % 4 {
                0 => machine("wander 5 2", |_| {}).0,
                _ => spawn(&snapshot).0,
            };
            assert_eq!(vm.run().expect("the host works").stop, expected);
        };
        let count = cases(10_000);
        (0..count / 20).for_each(cycle);
        let before = held();
        (0..count).for_each(cycle);
        let after = held();

        println!("{count} machines: {before:?}, then {after:?}");
        assert!(after[0] <= before[0] && after[1] <= before[1] + 2, "{before:?}, then {after:?}");
        assert!(after[2] <= before[2] + (1 << 20), "{before:?}, then {after:?}");
    });
}
