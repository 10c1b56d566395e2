//! What machines from a snapshot cost: many at once, and many one after the other.

use std::fs;
use std::process::Command;

use crate::harness::Seen;
use crate::harness::kept::{End, cases, machine, run_to, spawn};

/// Runs `body` in a process of its own, in which no other test counts: this test, started once more.
fn alone(test: &str, body: impl FnOnce()) {
    const ALONE: &str = "DUET_TEST_ALONE";
    if std::env::var(ALONE).is_ok_and(|own| own == test) {
        return body();
    }
    let own = std::env::current_exe().expect("this program has a path");
    let name = format!("snapshot_costs::{test}");
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
