//! Snapshots: whoever goes on from one does what a run does that nobody disturbs.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use vmm::observe::ExitCounts;
use vmm::snapshot::{Pool, Surroundings, Uncapturable};
use vmm::{Captured, Console, Grant, GrantMode, Limits, Snapshot, SnapshotCalls, StopReason, Vm};

use crate::harness::kept::{End, bytes_of, cases, machine, run_to, spawn};
use crate::harness::{boot, patiently, probe, vmm, vmm_run};

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
