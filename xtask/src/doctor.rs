//! `cargo xtask doctor`: can guests be built and run here, and if not, what to type.
//!
//! The toolchain is looked at here; all that concerns KVM is the VMM's own `doctor`, which is built and asked. What it
//! answers as JSON goes into the same list.

mod check;
mod toolchain;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::qemu;
use crate::workspace::{self, Profile};
use check::{Check, Status};

/// Prints what was found, for people or as JSON. The exit code is 0 only if guests can be built and run.
///
/// # Errors
/// When `rust-toolchain.toml` cannot be read, or there is no QEMU to ask. Whatever else is wrong is among what is printed.
pub fn run(json: bool, options: &qemu::Options) -> Result<ExitCode> {
    if options.kvm.qemu() {
        return ask_in_qemu(&["doctor"], json, options);
    }
    let diagnosis = merge(toolchain::checks()?, ask_vmm());
    if json {
        println!("{}", serde_json::to_string_pretty(&diagnosis)?);
    } else {
        let colour =
            io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        for check in &diagnosis.checks {
            println!("{}", check.render(colour));
        }
    }
    Ok(if diagnosis.can_run_guests { ExitCode::SUCCESS } else { ExitCode::from(CANNOT_RUN) })
}

/// Shows what the KVM can do: the VMM tries it.
///
/// # Errors
/// When the VMM cannot be built or started, here or in QEMU.
pub fn features(json: bool, options: &qemu::Options) -> Result<ExitCode> {
    if options.kvm.qemu() {
        return ask_in_qemu(&["doctor", "--features"], json, options);
    }
    let vmm = workspace::build_vmm(Profile::Debug)?;
    let json = json.then_some("--json");
    let status = workspace::status(Command::new(vmm).args(["doctor", "--features"]).args(json))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(CANNOT_RUN)))
}

/// Lets the VMM in QEMU answer these words.
fn ask_in_qemu(words: &[&str], json: bool, options: &qemu::Options) -> Result<ExitCode> {
    if options.kvm == qemu::Which::Both {
        bail!("`doctor` looks at one KVM: --kvm host or --kvm qemu");
    }
    qemu::run::check(&[])?;
    let words = words.iter().copied().chain(json.then_some("--json")).map(Into::into).collect();
    qemu::run::vmm(&options.linux, Profile::Debug, words, None)
}

/// The host could not do its work: the same number as the VMM's.
const CANNOT_RUN: u8 = 100;

/// What was found; the VMM's doctor prints the same fields.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Diagnosis {
    can_run_guests: bool,
    kvm_flavour: Option<String>,
    checks: Vec<Check>,
}

/// Builds the VMM and lets its doctor look at KVM. An error is the check that tells why there is no answer.
fn ask_vmm() -> Result<Diagnosis, Check> {
    let problem =
        |finding: String, remedy: &str| Check::new("vmm", Status::Problem, finding, remedy.to_owned());
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    if (os, architecture) != ("linux", "x86_64") {
        return Err(problem(
            format!("the VMM is for Linux on x86-64, this is {os} on {architecture}"),
            "use an x86-64 Linux machine that has /dev/kvm",
        ));
    }
    let vmm = workspace::build_vmm(Profile::Debug).map_err(|error| {
        problem(format!("the VMM cannot be built: {error:#}"), "`cargo build --package vmm` says why")
    })?;
    let mut diagnosis = vmm_diagnosis(&vmm).map_err(|error| {
        problem(
            format!("the VMM's doctor gives no answer: {error:#}"),
            "`cargo run --package vmm -- doctor` says why",
        )
    })?;
    let built = Check::ok("vmm", format!("{} is built", vmm.display()));
    diagnosis.checks.insert(0, built);
    Ok(diagnosis)
}

fn vmm_diagnosis(vmm: &Path) -> Result<Diagnosis> {
    // Its exit code says nothing that its answer does not say.
    let output = Command::new(vmm).args(["doctor", "--json"]).output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// One list of both: our own checks first, as nothing runs before it is built.
fn merge(own: Vec<Check>, vmm: Result<Diagnosis, Check>) -> Diagnosis {
    let mut diagnosis = vmm.unwrap_or_else(|check| Diagnosis { checks: vec![check], ..Diagnosis::default() });
    diagnosis.can_run_guests &= own.iter().all(Check::passed);
    diagnosis.checks.splice(..0, own);
    diagnosis
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_run_only_where_they_can_be_built_too() {
        let check = |status| Check::new("target", status, String::new(), String::new());
        let healthy = || Diagnosis { can_run_guests: true, ..Diagnosis::default() };
        assert!(merge(vec![check(Status::Ok)], Ok(healthy())).can_run_guests);
        assert!(!merge(vec![check(Status::Problem)], Ok(healthy())).can_run_guests);
        assert!(!merge(vec![check(Status::Ok)], Err(check(Status::Problem))).can_run_guests);
    }

    #[test]
    fn the_toolchain_is_told_before_the_vmm() {
        let check = |name| Check::ok(name, String::new());
        let vmm = Diagnosis { checks: vec![check("vmm"), check("guest")], ..Diagnosis::default() };
        let merged = merge(vec![check("rustc")], Ok(vmm));
        let names: Vec<_> = merged.checks.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["rustc", "vmm", "guest"]);
    }
}
