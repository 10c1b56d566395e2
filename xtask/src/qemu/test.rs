//! `cargo xtask test --kvm qemu`: the same suites on `kvm_amd`.
//!
//! Here they are compiled, there they run. What cannot run there is said by name and counted as skipped.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use second_kvm::{Job, Order, Stream};

use super::kernel::Choice;
use super::machine::{Machine, Terminal};
use crate::guest;
use crate::test::Totals;
use crate::workspace::{self, Profile};

/// Tests that cannot run in the machine, by a part of their names, and what they lack there.
const NEED_THIS_COMPUTER: [(&str, &str); 5] = [
    ("add_a_hypercall::", "needs cargo and the sources"),
    ("documents::", "needs the sources"),
    ("embedding::the_example_runs_a_guest", "needs cargo and the sources"),
    ("invariants::", "needs the sources"),
    ("xtask_commands::", "needs cargo and the sources"),
];

/// Where the machine has what the tests need: `tests/harness/mod.rs` reads these variables.
const GUESTS_INSIDE: &str = "/guests";
const VMM_INSIDE: &str = "/vmm";

/// The guests that the tests run.
const PROFILES: [Profile; 2] = [Profile::Debug, Profile::Release];

/// A suite takes a minute or two; one that takes this long hangs.
const SUITE_LIMIT: Duration = Duration::from_secs(20 * 60);

/// Runs the suites, or their tests whose name contains `filter`.
///
/// # Errors
/// When something cannot be built, there is no QEMU, or the machine does not come up. Failing tests are in the totals.
pub fn run(filter: Option<&str>, linux: &Choice) -> Result<Totals> {
    for profile in PROFILES {
        guest::build_all(profile)?;
    }
    let programs = workspace::build_static(&["vmm", "second-kvm"], Profile::Debug)?;
    let suites = suites()?;
    check_names(&suites)?;

    let machine = Machine::boot(&linux.find()?, &files(&programs, &suites)?)?;
    let mut total = Totals::default();
    for suite in &suites {
        total.add(&suite.run(filter, &machine)?);
    }
    println!(
        "\nnot run in QEMU: tests of xtask and second-kvm, which are about this computer, and documentation tests"
    );
    Ok(total)
}

/// A compiled suite.
struct Suite {
    name: String,
    binary: PathBuf,
    tests: Vec<String>,
}

impl Suite {
    fn at(binary: PathBuf) -> Result<Self> {
        // A static program runs anywhere: here, too.
        let output = Command::new(&binary).args(["--list", "--format", "terse"]).output();
        let output = output.with_context(|| format!("cannot start {}", binary.display()))?;
        let list = String::from_utf8_lossy(&output.stdout);
        let tests = list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
        let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, binary, tests })
    }

    fn inside(&self) -> String {
        format!("/suites/{}", self.name)
    }

    fn run(&self, filter: Option<&str>, machine: &Machine) -> Result<Totals> {
        eprintln!("xtask: in QEMU: {}", self.name);
        let mut command = vec![self.inside()];
        command.extend(filter.map(str::to_owned));
        let mut skipped = 0;
        for test in self.tests.iter().filter(|test| filter.is_none_or(|filter| test.contains(filter))) {
            if let Some((part, reason)) = NEED_THIS_COMPUTER.iter().find(|(part, _)| test.contains(part)) {
                println!("test {test} ... not run in QEMU: {reason}");
                command.extend(["--skip".to_owned(), (*part).to_owned()]);
                skipped += 1;
            }
        }
        let mut environment = super::environment();
        environment.push(format!("DUET_GUESTS={GUESTS_INSIDE}").into());
        environment.push(format!("DUET_VMM={VMM_INSIDE}").into());
        let job = Job { environment, command: command.into_iter().map(Into::into).collect() };

        let mut reader = Reader::default();
        let no_input = || drop(machine.link().send(&Order::InputEnd));
        let code = machine.run(job, &mut reader, no_input, Some(SUITE_LIMIT))?;
        reader.totals.skipped += skipped;
        reader.totals.judge(code == 0, &self.name, &format!("exit code {code}"));
        Ok(reader.totals)
    }
}

/// Compiles the suites that can run without cargo.
fn suites() -> Result<Vec<Suite>> {
    let mut binaries =
        workspace::build_static_tests(&["shared-abi", "vmm", "tests"], &["--lib", "--bins", "--tests"])?;
    // The guest's programs are no tests; its library is.
    binaries.extend(workspace::build_static_tests(&["guest-kernel"], &["--lib"])?);
    binaries.into_iter().map(Suite::at).collect()
}

/// A name above that fits no test is a mistake: the test was renamed, and now runs where it cannot.
fn check_names(suites: &[Suite]) -> Result<()> {
    let tests: BTreeSet<_> = suites.iter().flat_map(|suite| &suite.tests).collect();
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
    files.extend(suites.iter().map(|suite| (suite.inside(), suite.binary.clone())));
    Ok(files)
}

/// Shows what a suite writes, and reads its results.
#[derive(Default)]
struct Reader {
    totals: Totals,
    line: Vec<u8>,
}

impl Terminal for Reader {
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            Stream::Stdout => {
                self.read(bytes);
                io::stdout().write_all(bytes)
            }
            Stream::Stderr => io::stderr().write_all(bytes),
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
            assert_eq!(reader.totals, Totals { passed: 2, failed: 0, skipped: 1 }, "{size}");
        }
    }
}
