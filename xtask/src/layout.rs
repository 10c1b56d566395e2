//! `cargo xtask layout`: which functions a plain run executes, written into the linker script that puts them side by side.
//!
//! A program's pages come in when they are first touched, a fault each, and on a host that is a guest itself a fault
//! takes microseconds. The functions that a run needs are few, a twentieth of the program, and a linker spreads them over
//! all of it. So the release build's linker is told to put them first ([`SCRIPT`], which `.cargo/config.toml` names). To
//! know them the program is stepped through, one instruction at a time, while it runs the first lesson. Names stand there
//! without the hash that the compiler ends them with; a name that no longer fits makes a start slower and never wrong.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSymbol};

use crate::guest;
use crate::ptrace::{self, Change, Until};
use crate::workspace::{self, Profile};

/// The linker script, relative to the workspace.
pub const SCRIPT: &str = "vmm/start.ld";

/// What it begins with.
const HEAD: &str = "\
/* The functions that a plain run executes, in their order: side by side, they are few pages to touch.
   Written by `cargo xtask layout`. */
SECTIONS
{
  .text.start :
  {
";
/// What it ends with: the rest is as the linker would have it.
const TAIL: &str = "\
  }
}
INSERT BEFORE .text;
";

/// Builds the release VMM, follows a run of it and writes the script anew.
///
/// # Errors
/// When something cannot be built, followed or written.
pub fn run() -> Result<ExitCode> {
    let image = guest::build("01_hello", Profile::Release)?;
    let vmm = workspace::build_static(&["vmm"], Profile::Release)?.join("vmm");
    let functions = Functions::read(&vmm)?;
    eprintln!("xtask: following {} step by step, which takes a few seconds", vmm.display());
    let addresses = followed(Command::new(&vmm).arg("run").arg(image).stdout(Stdio::null()))?;
    let mut seen = HashSet::new();
    let names: Vec<_> = addresses.into_iter().filter_map(|address| functions.name_at(address)).collect();
    let patterns: Vec<_> = names.into_iter().map(pattern).filter(|name| seen.insert(name.clone())).collect();
    if patterns.is_empty() {
        bail!("no function of {} was executed that has a name", vmm.display());
    }
    let body: String = patterns.iter().map(|name| format!("    *(.text.{name})\n")).collect();
    let script = workspace::root().join(SCRIPT);
    std::fs::write(&script, format!("{HEAD}{body}{TAIL}"))
        .with_context(|| format!("cannot write {}", script.display()))?;
    println!("{} functions are in {SCRIPT}; the next release build puts them side by side", patterns.len());
    Ok(ExitCode::SUCCESS)
}

/// What to say when `program`, a release build, has too few of the functions that the script names: they were renamed since, or
/// the compiler is another.
///
/// # Errors
/// When either cannot be read.
pub(crate) fn complaint(program: &Path) -> Result<Option<String>> {
    let functions: HashSet<_> = Functions::read(program)?.0.iter().map(|(.., name)| pattern(name)).collect();
    let script = std::fs::read_to_string(workspace::root().join(SCRIPT))?;
    let (all, gone) = count_gone(&script, |name| functions.contains(name));
    Ok((gone > all / 10).then(|| {
        format!(
            "{gone} of the {all} functions in {SCRIPT} are not in {}: `cargo xtask layout` writes it anew, for fewer page faults",
            program.display()
        )
    }))
}

/// How many names the script has, and how many of them are not there.
fn count_gone(script: &str, is_there: impl Fn(&str) -> bool) -> (usize, usize) {
    let name = |line| str::strip_suffix(str::strip_prefix(line, "*(.text.")?, ")");
    let names: Vec<_> = script.lines().filter_map(|line| name(line.trim())).collect();
    (names.len(), names.iter().filter(|name| !is_there(name)).count())
}

/// A program's functions: start, end, name; sorted.
struct Functions(Vec<(u64, u64, String)>);

impl Functions {
    fn read(program: &Path) -> Result<Self> {
        let bytes = std::fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
        let file = object::File::parse(&*bytes)?;
        let mut functions: Vec<_> = file
            .symbols()
            .filter(|symbol| symbol.kind() == object::SymbolKind::Text && symbol.size() > 0)
            .filter_map(|symbol| {
                let start = symbol.address();
                Some((start, start + symbol.size(), symbol.name().ok()?.to_owned()))
            })
            .collect();
        functions.sort();
        Ok(Self(functions))
    }

    fn name_at(&self, address: u64) -> Option<&str> {
        let behind = self.0.partition_point(|(start, ..)| *start <= address);
        let (_, end, name) = self.0.get(behind.checked_sub(1)?)?;
        (address < *end).then_some(name)
    }
}

/// The name as a linker script finds it in another build: what the compiler makes of a crate's hash is left open.
fn pattern(name: &str) -> String {
    let (name, rest) = name.split_once(".llvm.").map_or((name, ""), |(name, _)| (name, "*"));
    match name.rfind("17h") {
        // Legacy mangling ends with a hash of 16 digits: Rust reference of symbol names, "legacy".
        Some(hash) if name.ends_with('E') && name.len() - hash == "17h".len() + 16 + "E".len() => {
            format!("{}17h*", &name[..hash])
        }
        _ => format!("{name}{rest}"),
    }
}

/// Runs `command` one instruction at a time: the address of each that is executed, once, in the order of the first times.
fn followed(command: &mut Command) -> Result<Vec<u64>> {
    let child = ptrace::spawn(command).with_context(|| format!("cannot start {command:?}"))?;
    let pid = libc::pid_t::try_from(child.id())?;
    let (mut seen, mut order, mut is_new) = (HashSet::new(), Vec::new(), true);
    loop {
        let Change { status, .. } = ptrace::wait(pid)?;
        if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0 {
            return Ok(order);
        }
        if !libc::WIFSTOPPED(status) {
            bail!("{command:?} should have ended well: status {status:#x}");
        }
        if std::mem::take(&mut is_new) {
            ptrace::set_options(pid, libc::PTRACE_O_EXITKILL)?;
        }
        let rip = ptrace::registers(pid)?.rip;
        if seen.insert(rip) {
            order.push(rip);
        }
        ptrace::go_on(pid, Until::Instruction, 0)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_the_next_build_too() {
        for (name, expected) in [
            ("_ZN3vmm2vm2Vm5build17h057a95e33ead8674E", "_ZN3vmm2vm2Vm5build17h*"),
            (
                "_ZN3vmm4vcpu4Vcpu5cross17hf3a81d86d6ff9adeE.llvm.5213494622557320295",
                "_ZN3vmm4vcpu4Vcpu5cross17h*",
            ),
            (
                "_RNvNtCsaz6eC2DG7lh_3std2rt19lang_start_internal",
                "_RNvNtCsaz6eC2DG7lh_3std2rt19lang_start_internal",
            ),
            ("memcpy", "memcpy"),
        ] {
            assert_eq!(pattern(name), expected);
        }
    }

    #[test]
    fn names_that_are_gone_are_counted() {
        let script = format!("{HEAD}    *(.text.main)\n    *(.text._ZN3vmm2vm2Vm5build17h*)\n{TAIL}");
        assert_eq!(count_gone(&script, |name| name == "main"), (2, 1));
        assert_eq!(count_gone(&script, |name| name.ends_with("17h*")), (2, 1));

        let this = std::env::current_exe().expect("a path");
        let complaint = complaint(&this).expect("both can be read").expect("these tests have no Vm::build");
        assert!(complaint.contains("cargo xtask layout"), "{complaint}");
    }

    #[test]
    fn an_address_between_functions_has_no_name() {
        let functions = Functions(vec![(16, 20, "first".to_owned()), (32, 40, "second".to_owned())]);
        let names = [15, 16, 19, 20, 39, 40].map(|address| functions.name_at(address));
        assert_eq!(names, [None, Some("first"), Some("first"), None, Some("second"), None]);
    }
}
