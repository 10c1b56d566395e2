//! Coverage of the host's code: instrumented by the compiler, counted by LLVM's tools of the same toolchain.
//!
//! Everything is compiled once more, below `target/coverage/build`, as instrumented code is other code. An instrumented program
//! writes a profile when it ends; so do the many that the whole-system tests start.

use std::fs;
use std::io::stderr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::lcov::Lines;
use crate::test::{UNITS, run_suite_shown_on};
use crate::workspace::{self, Profile, build_tests, cargo};
use crate::{guest, target};

/// The tests on the host. Those in documentation are programs of rustdoc's, and have no place here.
const SUITES: [&[&str]; 3] = [&UNITS, &["--package", "guest-kernel", "--lib"], &["--package", "tests"]];

/// A test that cannot hold here: it takes from the VMM the right to write files, and an instrumented one writes its profile.
const NOT_INSTRUMENTED: &str = "files::the_hosts_own_limit_of_file_sizes";

/// Runs the tests, or those whose name contains `filter`; says what they reach and how many have failed.
pub(super) fn measure(filter: Option<&str>) -> Result<(Lines, u64)> {
    let tools = Tools::find()?;
    let folder = super::folder();
    let profiles = folder.join("profiles");
    let _ = fs::remove_dir_all(&profiles);
    fs::create_dir_all(&profiles).with_context(|| format!("cannot make {}", profiles.display()))?;

    guest::build_all(Profile::Debug)?;
    let vmm = build_vmm()?;
    let (mut programs, mut failed) = (vec![vmm.clone()], 0);
    for suite in SUITES {
        let tests = build_tests(instrumented("test").args(suite))?;
        programs.extend(tests.into_iter().map(|test| test.program));
        let mut test = instrumented("test");
        test.args(suite).args(["--no-fail-fast", "--", "--skip", NOT_INSTRUMENTED]).args(filter);
        // Four files a program, which its processes share: there are hundreds.
        test.env("LLVM_PROFILE_FILE", profiles.join("%4m.profraw")).env("DUET_VMM", &vmm);
        failed += run_suite_shown_on(&mut stderr(), &mut test)?.failed;
    }

    let profile = folder.join("host.profdata");
    tools.merge(&profiles, &profile)?;
    let text = tools.export(&profile, &programs)?;
    Ok((Lines::read(&text), failed))
}

fn build_directory() -> PathBuf {
    super::folder().join("build")
}

/// A cargo whose products count what they execute. Guests are built for another target, whose flags stand elsewhere: they
/// are not changed by this.
fn instrumented(command: &str) -> Command {
    let mut cargo = cargo();
    cargo.arg(command).args(["--config", "build.rustflags=[\"-Cinstrument-coverage\"]"]);
    cargo.arg("--target-dir").arg(build_directory());
    // This variable would be used instead; and build scripts write profiles, too.
    cargo.env_remove("RUSTFLAGS").env("LLVM_PROFILE_FILE", "/dev/null");
    cargo
}

fn build_vmm() -> Result<PathBuf> {
    let mut cargo = instrumented("build");
    workspace::check(cargo.args(["--package", "vmm", "--bin", "vmm"]))?;
    Ok(build_directory().join("debug/vmm"))
}

/// LLVM's tools, as the toolchain has them: only these are sure to read what its compiler writes.
struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// Installs them unless they are there.
    fn find() -> Result<Self> {
        let tools = Self { folder: target::host_tools()? };
        if tools.are_there() {
            return Ok(tools);
        }
        let mut rustup = Command::new("rustup");
        rustup.args(["component", "add", "llvm-tools"]).current_dir(workspace::root());
        eprintln!("xtask: LLVM's tools are not installed yet: {}", workspace::words(&rustup));
        let installed = workspace::check(&mut rustup);
        if installed.is_err() || !tools.are_there() {
            let reason = installed.err().map_or_else(String::new, |error| format!(" ({error:#})"));
            bail!(
                "coverage of the host needs LLVM's tools{reason}; type this in the workspace: rustup component add \
                 llvm-tools, or measure the guest alone: cargo xtask coverage --guest"
            );
        }
        Ok(tools)
    }

    fn are_there(&self) -> bool {
        ["llvm-profdata", "llvm-cov"].iter().all(|tool| self.folder.join(tool).is_file())
    }

    /// Adds up all profiles in a folder.
    fn merge(&self, profiles: &Path, to: &Path) -> Result<()> {
        let mut merge = Command::new(self.folder.join("llvm-profdata"));
        // A program that was killed leaves half a profile.
        merge.args(["merge", "--sparse", "--failure-mode=warn", "-o"]).arg(to).arg(profiles);
        workspace::check(&mut merge)
    }

    /// What the programs have reached, in lcov's format.
    fn export(&self, profile: &Path, programs: &[PathBuf]) -> Result<String> {
        let mut export = Command::new(self.folder.join("llvm-cov"));
        export.args(["export", "--format=lcov", "--skip-functions", "--instr-profile"]).arg(profile);
        let (first, others) = programs.split_first().context("there are no tests")?;
        export.arg(first);
        for program in others {
            export.arg("--object").arg(program);
        }
        let output = export.output().context("cannot start llvm-cov")?;
        if !output.status.success() {
            bail!("llvm-cov failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
