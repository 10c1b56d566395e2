//! `cargo xtask gdb`: builds a guest and the VMM, and opens gdb on the guest, stopped at its first instruction.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::guest::DebugInfo;
use crate::request::{self, Image};
use crate::workspace::{self, Profile};
use crate::{boot, guest, target};

const HELP: &str = "\
Builds a guest program and the VMM, and opens gdb on the guest, stopped at its first instruction

Usage: cargo xtask gdb [PROGRAM] [--release|--debug] [--batch] [-ex COMMAND]... [-iex COMMAND]... [-x FILE]...
                       [VMM OPTIONS] [-- [GUEST ARGUMENTS] [-- GDB ARGUMENTS]]

PROGRAM is a name that `cargo xtask list` shows, or the path of an ELF file; without it, 01_hello runs. When gdb ends,
the machine ends. In gdb, `monitor help` shows what the VMM knows. RUST_GDB may name another gdb.

Examples:
  cargo xtask gdb
  cargo xtask gdb 01_hello -- first second
  cargo xtask gdb -ex 'break 01_hello::main' -ex continue
  cargo xtask gdb --batch -ex 'break 01_hello::main' -ex continue -ex backtrace

The VMM options are those of `vmm run`. The guest has no input, as the terminal is gdb's.
";

/// Runs the command with the words behind `cargo xtask gdb`.
///
/// # Errors
/// When something cannot be built, or there is no gdb. How gdb ends is the exit code.
pub fn run(words: &[OsString]) -> Result<ExitCode> {
    let request = Request::from_words(words)?;
    if request.help {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let gdb = need_gdb()?;
    boot::need_kvm()?;
    let image = match &request.image {
        Image::File(path) => path.clone(),
        Image::Program(name) => guest::build_with(name, request.profile, request.debug_info)?,
    };
    let vmm = workspace::build_vmm(request.profile)?;

    let folder = tempfile::tempdir().context("cannot make a folder for gdb's socket")?;
    let socket = folder.path().join("gdb");
    let _vmm = Machine::start(&vmm, &image, &socket, &request)?;
    let mut gdb = Command::new(gdb);
    let status = attend(gdb.args(setup(&image, &socket)).args(&request.gdb_arguments))?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

/// Runs gdb to its end. Ctrl-C is gdb's: it stops the guest, and not this program. What ends this program ends gdb too.
fn attend(gdb: &mut Command) -> Result<ExitStatus> {
    let (ignored, over) = (Arc::default(), Arc::<AtomicBool>::default());
    let register = |signal, flag: &Arc<AtomicBool>| signal_hook::flag::register(signal, Arc::clone(flag));
    register(SIGINT, &ignored).context("cannot leave Ctrl-C to gdb")?;
    for signal in [SIGTERM, SIGHUP] {
        register(signal, &over).context("cannot see signals")?;
    }
    let words = workspace::words(gdb);
    let mut child = gdb.spawn().with_context(|| format!("cannot start `{words}`"))?;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for gdb")? {
            return Ok(status);
        }
        if over.load(Ordering::SeqCst) {
            // It may have ended meanwhile, which is as good.
            let _ = child.kill();
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// The gdb to start.
fn need_gdb() -> Result<OsString> {
    let gdb = std::env::var_os("RUST_GDB").unwrap_or_else(|| "gdb".into());
    match Command::new(&gdb).arg("--version").output() {
        Ok(output) if output.status.success() => Ok(gdb),
        _ => bail!(
            "`{}` does not run: install gdb (Debian, Ubuntu: `sudo apt install gdb`; Fedora: `sudo dnf install gdb`), or \
             name another in RUST_GDB",
            gdb.display()
        ),
    }
}

/// What the words mean.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    image: Image,
    profile: Profile,
    debug_info: DebugInfo,
    help: bool,
    vmm_options: Vec<OsString>,
    guest_arguments: Vec<OsString>,
    gdb_arguments: Vec<OsString>,
}

impl Request {
    /// As `cargo xtask run` reads them. gdb's own options are taken out before the first `--`; what stands behind a
    /// second one is gdb's.
    fn from_words(words: &[OsString]) -> Result<Self> {
        let is_border = |word: &&OsString| *word == OsStr::new("--");
        let borders: Vec<usize> =
            words.iter().enumerate().filter(|(_, word)| is_border(word)).map(|(i, _)| i).collect();
        let gdb_start = borders.get(1).copied().unwrap_or(words.len());
        let (own, gdb_part) = words.split_at(gdb_start);
        let (mut gdb_arguments, own) = take_gdb_options(own);
        gdb_arguments.extend(gdb_part.iter().skip(1).cloned());
        let run = request::Request::from_words(&own, false)?;
        if run.kvm.kvm.qemu() {
            bail!("`gdb` debugs guests on this computer's KVM; it has no --kvm");
        }
        Ok(Self {
            image: run.image,
            profile: run.profile,
            debug_info: run.debug_info,
            help: run.help,
            vmm_options: run.vmm_options,
            guest_arguments: run.guest_part,
            gdb_arguments,
        })
    }
}

/// Splits gdb's options off, and leaves the rest.
fn take_gdb_options(words: &[OsString]) -> (Vec<OsString>, Vec<OsString>) {
    let (mut gdb, mut rest) = (Vec::new(), Vec::new());
    let mut words = words.iter().cloned();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--batch" | "-batch") => gdb.push(word),
            Some("-ex" | "--ex" | "-iex" | "--iex" | "-x") => {
                gdb.extend([Some(word), words.next()].into_iter().flatten())
            }
            Some("--") => {
                rest.push(word);
                rest.extend(words.by_ref());
            }
            _ => rest.push(word),
        }
    }
    (gdb, rest)
}

/// gdb's arguments: the image, how to read it, where the machine is.
fn setup(image: &Path, socket: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["-q", "-iex", "set architecture i386:x86-64"].map(OsString::from).into();
    // The paths in our debug information are relative to the workspace.
    words.push(format!("--directory={}", workspace::root().display()).into());
    words.extend(library_sources());
    words.push(image.into());
    words.extend(pretty_printers());
    words.extend(["-ex".into(), format!("target remote {}", socket.display()).into()]);
    words
}

/// Where the sources of Rust's library are, if they are installed; debug information names them by rustc's commit.
fn library_sources() -> Vec<OsString> {
    let Ok(sources) = target::sysroot().map(|sysroot| sysroot.join("lib/rustlib/src/rust")) else {
        return Vec::new();
    };
    let rustc = Command::new("rustc").arg("-vV").current_dir(workspace::root()).output();
    let version =
        rustc.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match version.lines().find_map(|line| line.strip_prefix("commit-hash: ")) {
        Some(commit) if sources.is_dir() => {
            vec!["-iex".into(), format!("set substitute-path /rustc/{commit} {}", sources.display()).into()]
        }
        _ => Vec::new(),
    }
}

/// How gdb shows Rust's types: the scripts of `rust-gdb`, where the toolchain has them.
fn pretty_printers() -> Vec<OsString> {
    const SCRIPT: &str = "lib/rustlib/etc/gdb_load_rust_pretty_printers.py";
    match target::sysroot().map(|sysroot| sysroot.join(SCRIPT)) {
        Ok(script) if script.is_file() => vec!["-ex".into(), format!("source {}", script.display()).into()],
        _ => Vec::new(),
    }
}

/// The VMM; it ends when this is dropped.
struct Machine(Child);

impl Machine {
    /// Starts the VMM and waits until gdb can connect.
    fn start(vmm: &Path, image: &Path, socket: &Path, request: &Request) -> Result<Self> {
        let mut command = Command::new(vmm);
        command.arg("run").arg(image).args(&request.vmm_options);
        command.arg(format!("--gdb=unix:{}", socket.display())).args(&request.guest_arguments);
        // Ctrl-C is gdb's: it goes to the terminal's group of processes, and so may the terminal's input.
        command.process_group(0).stdin(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {}", vmm.display()))?;
        let mut machine = Self(child);
        let start = Instant::now();
        while !fs::metadata(socket).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            if let Some(status) = machine.0.try_wait().context("cannot wait for the VMM")? {
                bail!("the VMM ended before gdb could connect: {status}");
            }
            if start.elapsed() > START_LIMIT {
                bail!("the VMM does not wait for gdb after {START_LIMIT:?}");
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(machine)
    }
}

/// Far more than building a machine takes.
const START_LIMIT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A VMM whose debugger is gone has this long to end by itself, and to show what the guest has printed.
const END_LIMIT: Duration = Duration::from_millis(500);

impl Drop for Machine {
    fn drop(&mut self) {
        let start = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && start.elapsed() < END_LIMIT {
            thread::sleep(LOOK_EVERY);
        }
        // It may have ended meanwhile, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Request {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Request::from_words(&words).expect("the workspace has programs")
    }

    #[test]
    fn the_first_dashes_start_the_guests_words_and_the_second_gdbs() {
        let request = request(&["probe", "--memory", "4M", "--", "exit", "7", "--", "--batch", "-ex", "bt"]);
        assert_eq!(request.image, Image::Program("probe".into()));
        assert_eq!(request.vmm_options, ["--memory", "4M"]);
        assert_eq!(request.guest_arguments, ["--", "exit", "7"]);
        assert_eq!(request.gdb_arguments, ["--batch", "-ex", "bt"]);
    }

    #[test]
    fn without_words_gdb_opens_on_the_first_program() {
        let request = request(&[]);
        assert_eq!(request.image, Image::Program(guest::DEFAULT_PROGRAM.into()));
        assert!(request.guest_arguments.is_empty() && request.gdb_arguments.is_empty());
    }

    #[test]
    fn gdbs_own_options_are_known_before_the_dashes_only() {
        let request = request(&["--batch", "-ex", "break main", "probe", "--memory", "4M", "--", "-ex", "1"]);
        assert_eq!(request.image, Image::Program("probe".into()));
        assert_eq!(request.gdb_arguments, ["--batch", "-ex", "break main"]);
        assert_eq!(request.vmm_options, ["--memory", "4M"]);
        assert_eq!(request.guest_arguments, ["--", "-ex", "1"]);
    }
}
