//! `cargo xtask test --kvm qemu`: the same suites on `kvm_amd`.
//!
//! Here they are compiled, there they run: in two machines at once, since each has one CPU. What cannot run there is said by
//! name and counted as skipped.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use second_kvm::{Job, Order, Stream};

use super::kernel::{Choice, Kernel};
use super::machine::{self, Files, Machine, Terminal};
use crate::guest;
use crate::test::{Totals, run_suite};
use crate::workspace::{self, Built, Profile};

/// Tests of [`SYSTEM`] that cannot run in the machine, by a part of their names, and what they lack there.
const NEED_THIS_COMPUTER: &[(&str, &str)] = &[
    ("add_a_hypercall::", "needs cargo and the sources"),
    ("bench::", "needs cargo and the sources"),
    ("core_file::a_core_file_that_finds_no_room", "needs a shell"),
    ("core_file::gdb::", "needs gdb"),
    ("coverage::", "needs cargo and the sources"),
    ("documents::", "needs cargo and the sources"),
    ("embedding::the_example_runs_a_guest", "needs cargo and the sources"),
    ("explain::every_line_of_source_holds_its_step", "needs the sources"),
    ("files::the_hosts_own_limit_of_file_sizes", "needs a shell"),
    ("floor::", "needs cargo and the sources"),
    ("foreign_images::", "needs a C compiler"),
    ("fuzzing::", "needs cargo and the sources"),
    ("gdb::", "needs gdb"),
    ("guest_tests::", "needs cargo and the sources"),
    ("images::more_memory_than_the_host_gives_is_named", "needs a shell"),
    ("images::what_is_no_file_is_refused", "needs mkfifo"),
    ("invariants::", "needs the sources"),
    ("report_page::", "needs Chromium"),
    ("second_kvm::", "needs QEMU"),
    ("write_a_program::", "needs cargo and the sources"),
    ("xtask_commands::", "needs cargo and the sources"),
];

/// The suite of whole-system tests.
const SYSTEM: &str = "tests/main.rs";

/// How much longer than here things may take there: emulation makes system calls slow, and fork and exec slower.
const SLOWNESS: u32 = 8;

/// Where the machine has what the tests need: `tests/harness/mod.rs` reads these variables.
const GUESTS_INSIDE: &str = "/guests";
const VMM_INSIDE: &str = "/vmm";

/// The guests that the tests run.
const PROFILES: [Profile; 2] = [Profile::Debug, Profile::Release];

/// Machines that run tests at once, at most. Each keeps a core of this computer busy, and takes 2 GiB.
const MACHINES: usize = 2;

/// A suite takes a minute or two; one that takes this long hangs.
const SUITE_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Runs the suites, or their tests whose name contains `filter`.
///
/// # Errors
/// When something cannot be built, there is no QEMU, or the machine does not come up. Failing tests are in the totals.
pub fn run(filter: Option<&str>, linux: &Choice) -> Result<Totals> {
    machine::need_qemu()?;
    for profile in PROFILES {
        guest::build_all(profile)?;
    }
    let programs = workspace::build_static(&["vmm", "second-kvm"], Profile::Debug)?;
    let suites = suites(&programs.join("vmm"))?;
    check_names(&suites)?;

    let mut total = boot_tests(filter)?;
    total.skipped += say_what_is_not_run(&suites, filter);
    let files = files(&programs, &suites)?;
    let machines = thread::available_parallelism().map_or(1, |cores| MACHINES.min(cores.get()));
    total.add(&run_shares(&deal(&suites, filter, machines), &linux.find()?, &files)?);
    println!(
        "\nnot run in QEMU: tests of xtask and second-kvm, which are about this computer, and documentation tests"
    );
    Ok(total)
}

/// Runs the tests that boot a machine of their own: ignored elsewhere, as not everybody has QEMU.
fn boot_tests(filter: Option<&str>) -> Result<Totals> {
    const SUITE: &str = "second_kvm::";
    let filter = match filter {
        None => SUITE,
        Some(filter) if filter.starts_with(SUITE) => filter,
        Some(_) => return Ok(Totals::default()),
    };
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package", "tests", "--", "--ignored", filter]);
    run_suite(&mut cargo)
}

/// A compiled suite.
struct Suite {
    built: Built,
    /// What runs it in the machine: nothing, or the VMM when the tests are inside guests.
    runner: &'static [&'static str],
    tests: Vec<String>,
}

impl Suite {
    /// Tests that are a program of their own. A static program runs anywhere: here, too.
    fn of(built: Built) -> Result<Self> {
        let tests = list(&mut Command::new(&built.program))?;
        Ok(Self { built, runner: &[], tests })
    }

    /// Tests inside guests.
    fn in_guests(built: Built, vmm: &Path) -> Result<Self> {
        let tests = list(Command::new(vmm).arg("test").arg(&built.program))?;
        Ok(Self { built, runner: &[VMM_INSIDE, "test"], tests })
    }

    fn is_system(&self) -> bool {
        self.built.source == Path::new(SYSTEM)
    }

    /// Where the machine has it.
    fn inside(&self) -> String {
        format!("/suites/{}", self.built.program.file_name().unwrap_or_default().display())
    }

    /// The tests that are wanted, each with what it lacks in the machine, if it cannot run there.
    fn wanted<'a>(&'a self, filter: Option<&str>) -> Vec<(&'a str, Option<&'static str>)> {
        let wanted = self.tests.iter().filter(|test| filter.is_none_or(|filter| test.contains(filter)));
        wanted.map(|test| (test.as_str(), self.reason_not_to_run(test))).collect()
    }

    fn reason_not_to_run(&self, test: &str) -> Option<&'static str> {
        let mut needs = NEED_THIS_COMPUTER.iter().filter(|_| self.is_system());
        needs.find(|(part, _)| test.contains(part)).map(|(_, reason)| *reason)
    }
}

/// Names the tests that cannot run in a machine, and counts them.
fn say_what_is_not_run(suites: &[Suite], filter: Option<&str>) -> u64 {
    let mut count = 0;
    for (test, reason) in suites.iter().flat_map(|suite| suite.wanted(filter)) {
        if let Some(reason) = reason {
            println!("test {test} ... not run in QEMU: {reason}");
            count += 1;
        }
    }
    count
}

/// Some tests of a suite, for one machine.
struct Task<'a> {
    suite: &'a Suite,
    /// Which, in libtest's words.
    choice: Vec<&'a str>,
}

/// What one machine does, one after the other.
type Share<'a> = Vec<Task<'a>>;

/// Deals out the suites to `machines`, those without work left out. The system tests take most of the time, so every machine
/// has some; neighbours, which often take as long as one another, are on different ones.
fn deal<'a>(suites: &'a [Suite], filter: Option<&'a str>, machines: usize) -> Vec<Share<'a>> {
    let mut shares: Vec<Share<'a>> = (0..machines).map(|_| Vec::new()).collect();
    let suites = suites.iter().filter(|suite| !suite.wanted(filter).is_empty());
    let (system, others): (Vec<_>, Vec<_>) = suites.partition(|suite| suite.is_system());
    for (suite, machine) in others.into_iter().zip((0..machines).cycle()) {
        shares[machine].push(Task { suite, choice: filter.into_iter().collect() });
    }
    for suite in system {
        let tests = suite.wanted(filter).into_iter().filter(|(_, reason)| reason.is_none());
        let tests: Vec<_> = tests.map(|(test, _)| test).collect();
        for (share, first) in shares.iter_mut().zip(0..) {
            let own: Vec<_> = tests.iter().copied().skip(first).step_by(machines).collect();
            if !own.is_empty() {
                share.push(Task { suite, choice: [&["--exact"][..], &own].concat() });
            }
        }
    }
    shares.retain(|share| !share.is_empty());
    shares
}

/// Runs all shares at once, each in a machine of its own. What the first does is shown at once, what the others do
/// afterwards.
fn run_shares(shares: &[Share<'_>], linux: &Kernel, files: &Files) -> Result<Totals> {
    let Some((first, others)) = shares.split_first() else { return Ok(Totals::default()) };
    thread::scope(|scope| {
        let run = |share, shown| {
            let mut reader = Reader { shown, ..Reader::default() };
            let done =
                Machine::boot(linux, files).and_then(|machine| run_share(share, &machine, &mut reader));
            (reader, done)
        };
        let others: Vec<_> =
            others.iter().map(|share| scope.spawn(move || run(share, Shown::Later(Vec::new())))).collect();
        let mut outcomes = vec![run(first, Shown::Now)];
        for other in others {
            outcomes.push(other.join().map_err(|_| anyhow!("a thread panicked"))?);
        }
        // All is shown before an error is told: what a machine wrote before it died says most.
        outcomes.iter().try_for_each(|(reader, _)| reader.shown.show())?;
        let mut total = Totals::default();
        for (reader, done) in outcomes {
            done?;
            total.add(&reader.totals);
        }
        Ok(total)
    })
}

fn run_share(share: &Share<'_>, machine: &Machine, reader: &mut Reader) -> Result<()> {
    for Task { suite, choice } in share {
        let name = suite.built.source.display().to_string();
        eprintln!("xtask: in QEMU: tests of {name}");
        let mut command: Vec<_> = suite.runner.iter().map(|&word| word.to_owned()).collect();
        command.push(suite.inside());
        command.extend(choice.iter().map(|&word| word.to_owned()));
        let job = Job { environment: environment(), command: command.into_iter().map(Into::into).collect() };

        let no_input = || drop(machine.link().send(&Order::InputEnd));
        let before = std::mem::take(&mut reader.totals);
        let code = machine.run(job, reader, no_input, Some(SUITE_LIMIT))?;
        reader.totals.settle();
        reader.totals.judge(code == 0, &name, &format!("exit code {code}"));
        reader.totals.add(&before);
    }
    Ok(())
}

/// The names of the tests that `command` would run.
fn list(command: &mut Command) -> Result<Vec<String>> {
    let output = command.args(["--list", "--format", "terse"]).output();
    let output = output.with_context(|| format!("cannot start `{}`", workspace::words(command)))?;
    let list = String::from_utf8_lossy(&output.stdout);
    Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

fn environment() -> Vec<OsString> {
    let mut environment = super::environment();
    environment.push(format!("DUET_GUESTS={GUESTS_INSIDE}").into());
    environment.push(format!("DUET_VMM={VMM_INSIDE}").into());
    environment.push(format!("DUET_SLOWNESS={SLOWNESS}").into());
    environment
}

/// Compiles the suites that can run without cargo.
fn suites(vmm: &Path) -> Result<Vec<Suite>> {
    let packages = ["shared-abi", "vmm", "tests"];
    let mut suites = workspace::build_static_tests(&packages, &["--lib", "--bins", "--tests"])?;
    // The guest's programs are no tests; its library is.
    suites.extend(workspace::build_static_tests(&["guest-kernel"], &["--lib"])?);
    let mut suites = suites.into_iter().map(Suite::of).collect::<Result<Vec<_>>>()?;
    for image in workspace::build_tests(&mut crate::test::in_guests())? {
        suites.push(Suite::in_guests(image, vmm)?);
    }
    suites.retain(|suite| !suite.tests.is_empty());
    Ok(suites)
}

/// A name above that fits no test is a mistake: the test was renamed, and now runs where it cannot.
fn check_names(suites: &[Suite]) -> Result<()> {
    let tests: BTreeSet<_> =
        suites.iter().filter(|suite| suite.is_system()).flat_map(|suite| &suite.tests).collect();
    for (part, _) in NEED_THIS_COMPUTER {
        if !tests.iter().any(|test| test.contains(part)) {
            bail!("no test is called `{part}` any more: correct NEED_THIS_COMPUTER in {}", file!());
        }
    }
    Ok(())
}

fn files(programs: &Path, suites: &[Suite]) -> Result<Vec<(String, PathBuf)>> {
    let mut files = vec![
        ("/init".to_owned(), programs.join("second-kvm")),
        (VMM_INSIDE.to_owned(), programs.join("vmm")),
    ];
    for (program, profile) in guest::programs()?.iter().flat_map(|program| PROFILES.map(|p| (program, p))) {
        let image = guest::directory(profile).join(&program.name);
        files.push((format!("{GUESTS_INSIDE}/{}/{}", profile.directory(), program.name), image));
    }
    files.extend(suites.iter().map(|suite| (suite.inside(), suite.built.program.clone())));
    Ok(files)
}

/// When people see what a suite writes.
#[derive(Default)]
enum Shown {
    #[default]
    Now,
    Later(Vec<u8>),
}

impl Shown {
    fn take(&mut self, bytes: &[u8], mut now: impl Write) -> io::Result<()> {
        match self {
            Self::Now => now.write_all(bytes),
            Self::Later(kept) => kept.write_all(bytes),
        }
    }

    fn show(&self) -> io::Result<()> {
        match self {
            Self::Now => Ok(()),
            Self::Later(kept) => io::stdout().write_all(kept),
        }
    }
}

/// Shows what suites write, and reads their results.
#[derive(Default)]
struct Reader {
    totals: Totals,
    line: Vec<u8>,
    shown: Shown,
}

impl Terminal for Reader {
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            Stream::Stdout => {
                self.read(bytes);
                self.shown.take(bytes, io::stdout())
            }
            Stream::Stderr => self.shown.take(bytes, io::stderr()),
        }
    }
}

impl Reader {
    fn read(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.totals.read(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            } else {
                self.line.push(byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_however_the_bytes_come() {
        let text = b"running 2 tests\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured\n";
        for size in [1, 7, text.len()] {
            let mut reader = Reader::default();
            text.chunks(size).for_each(|chunk| reader.read(chunk));
            assert_eq!(
                reader.totals,
                Totals { passed: 2, failed: 0, skipped: 1, lacking: Vec::new() },
                "{size}"
            );
        }
    }

    fn suite(source: &str, tests: &[&str]) -> Suite {
        let built = Built { source: source.into(), program: "suite".into() };
        Suite { built, runner: &[], tests: tests.iter().map(|&test| test.to_owned()).collect() }
    }

    #[test]
    fn every_test_is_one_machine_s_and_what_cannot_run_there_is_nobody_s() {
        let suites =
            [suite("lib.rs", &["unit"]), suite(SYSTEM, &["boot::a", "boot::b", "boot::c", "gdb::d"])];
        let dealt = |filter, machines| -> Vec<Vec<Vec<&str>>> {
            let shares = deal(&suites, filter, machines);
            shares.into_iter().map(|share| share.into_iter().map(|task| task.choice).collect()).collect()
        };
        assert_eq!(
            dealt(None, 2),
            [vec![vec![], vec!["--exact", "boot::a", "boot::c"]], vec![vec!["--exact", "boot::b"]]]
        );
        assert_eq!(dealt(Some("boot::b"), 2), [[vec!["--exact", "boot::b"]]]);
        assert_eq!(dealt(Some("unit"), 2), [[vec!["unit"]]]);
        assert_eq!(dealt(Some("gdb"), 1), Vec::<Vec<Vec<&str>>>::new());
    }
}
