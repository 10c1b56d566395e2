//! The machine in QEMU: booted, given programs to run, switched off.

use std::fs::{self, File};
use std::io::{BufReader, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use second_kvm::{CONSENT, Event, Job, Order, PORT, Stream};
use tempfile::TempDir;

use super::initramfs::Initramfs;
use super::kernel::Kernel;
use super::link::Link;
use super::modules::Modules;

const QEMU: &str = "qemu-system-x86_64";

/// One CPU: with two, `kvm_amd` on this emulated SVM has been seen to lock up.
const HARDWARE: &str = "-accel tcg -cpu EPYC,+svm,+npt -smp 1 -m 2048 -display none -nodefaults -no-reboot";

/// A machine comes up in 3 to 10 seconds; one that takes this long has stopped on its way.
const BOOT_LIMIT: Duration = Duration::from_secs(180);

/// A dying machine writes its last words in this time.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

/// Switching it off takes a tenth of a second.
const OFF_LIMIT: Duration = Duration::from_secs(5);

/// A Linux with `kvm_amd`, up and waiting for programs.
pub struct Machine {
    link: Link,
    events: Receiver<Event>,
    /// What QEMU says on its stderr.
    complaints: File,
    /// What Linux, and our first process, say on the console.
    console: File,
}

/// A file for the machine: its absolute path there, and where it is here.
pub type Files = [(String, PathBuf)];

/// What a program in the machine gets, and who hears what it writes.
pub trait Terminal {
    /// The program has written this. An error is that nobody reads it any more.
    ///
    /// # Errors
    /// When it cannot be passed on.
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> std::io::Result<()>;
}

/// Says what to install where there is no QEMU; before anything is built, as that takes a while.
///
/// # Errors
/// When there is none.
pub(crate) fn need_qemu() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(QEMU).is_file()) {
        return Ok(());
    }
    bail!(
        "{QEMU} not found: `apt-get install qemu-system-x86`, or your distribution's package of that program"
    );
}

impl Machine {
    /// Boots `kernel` with `files`, of which `/init` is the crate `second-kvm`.
    ///
    /// # Errors
    /// When there is no QEMU, a file is missing, or Linux does not come up; the error then has its last words.
    pub fn boot(kernel: &Kernel, files: &Files) -> Result<Self> {
        let start = Instant::now();
        fs::create_dir_all(super::directory())?;
        let folder = tempfile::Builder::new().prefix("machine-").tempdir_in(super::directory())?;
        pack(kernel, files, &folder.path().join(INITRAMFS))?;
        eprintln!("xtask: booting Linux {} in QEMU, which emulates a CPU with SVM", kernel.release());
        let machine = Self::start(kernel, &folder)?;
        match machine.events.recv_timeout(BOOT_LIMIT) {
            Ok(Event::Ready) => {}
            Ok(Event::Failed(reason)) => bail!("the machine in QEMU is not usable: {reason}"),
            Ok(other) => bail!("the machine in QEMU began with {other:?}"),
            Err(RecvTimeoutError::Disconnected) => return Err(machine.died("before it was ready")),
            Err(RecvTimeoutError::Timeout) => {
                return Err(machine.died(&format!("not ready after {} s", BOOT_LIMIT.as_secs())));
            }
        }
        eprintln!("xtask: kvm_amd is ready there after {:.1} s", start.elapsed().as_secs_f64());
        Ok(machine)
    }

    /// Starts QEMU with `folder`, which it needs until the machine is ready.
    fn start(kernel: &Kernel, folder: &TempDir) -> Result<Self> {
        let new_file =
            |name| File::options().read(true).append(true).create(true).open(folder.path().join(name));
        let (complaints, console) = (new_file(COMPLAINTS)?, new_file(CONSOLE)?);
        let mut qemu = command(&std::path::absolute(&kernel.image)?);
        qemu.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(complaints.try_clone()?);
        // Ctrl-C in a terminal reaches the whole process group; QEMU shall go on until the VMM inside has answered.
        let child = qemu.process_group(0).spawn();
        let mut child = child.with_context(|| format!("cannot start {QEMU}"))?;
        let events = listen(child.stdout.take().expect("stdout is piped"));
        let link = Link::to(child);
        let litter = folder.path().to_owned();
        link.listen_to_signals(move || drop(fs::remove_dir_all(&litter)))?;
        Ok(Self { link, events, complaints, console })
    }

    /// The way to the machine.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Runs a program to its end, for `limit` at most, and gives its exit code.
    ///
    /// `input` is told when the program can take the next piece of stdin.
    ///
    /// # Errors
    /// When the program cannot be started, takes too long, or the machine dies.
    pub(crate) fn run(
        &self,
        job: Job,
        terminal: &mut dyn Terminal,
        mut input: impl FnMut(),
        limit: Option<Duration>,
    ) -> Result<i32> {
        let name = job.command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        self.link.send(&Order::Run(job)).context("cannot reach the machine in QEMU")?;
        input();
        let end = limit.map(|limit| Instant::now() + limit);
        loop {
            match self.next_event(end) {
                Ok(Event::Output(stream, bytes)) => {
                    if terminal.wrote(stream, &bytes).is_err() {
                        // What cannot be sent concerns a machine that is gone; the next event says so.
                        drop(self.link.send(&Order::OutputUnread));
                    }
                }
                Ok(Event::InputTaken) => input(),
                Ok(Event::Ended(code)) => return Ok(code),
                Ok(Event::Failed(reason)) => bail!("in QEMU: {reason}"),
                Ok(Event::Ready) => bail!("the machine in QEMU has restarted"),
                Err(RecvTimeoutError::Disconnected) => return Err(self.died(&format!("while it ran {name}"))),
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = limit.unwrap_or_default().as_secs();
                    bail!("{name} has not ended within {seconds} s in QEMU");
                }
            }
        }
    }

    fn next_event(&self, end: Option<Instant>) -> Result<Event, RecvTimeoutError> {
        match end {
            Some(end) => self.events.recv_timeout(end.saturating_duration_since(Instant::now())),
            None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// The error that tells of the machine's death: when, and the last words of QEMU and Linux.
    fn died(&self, when: &str) -> anyhow::Error {
        let status = match self.link.close(LAST_WORDS_LIMIT) {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let complaints = last_lines("QEMU", &self.complaints);
        let console = last_lines("Linux", &self.console);
        anyhow!("the machine in QEMU died {when} ({status}){complaints}{console}")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // What is left of a machine that nobody needs any more is no error.
        drop(self.link.close(OFF_LIMIT));
    }
}

/// Files in a machine's folder, which is QEMU's working directory.
const INITRAMFS: &str = "initramfs";
const CONSOLE: &str = "console";
const COMPLAINTS: &str = "complaints";

fn pack(kernel: &Kernel, files: &Files, archive: &Path) -> Result<()> {
    let mut initramfs = Initramfs::create(archive)?;
    initramfs.add_modules(&Modules::of(kernel)?.wanted()?)?;
    for (name, file) in files {
        initramfs.add_file(name, file)?;
    }
    initramfs.finish()
}

fn command(kernel: &Path) -> Command {
    let mut qemu = Command::new(QEMU);
    qemu.args(HARDWARE.split(' ')).arg("-kernel").arg(kernel).args(["-initrd", INITRAMFS]);
    // What stands behind `--` are arguments of /init.
    qemu.args(["-append", &format!("console=ttyS0 quiet panic=-1 mitigations=off -- {CONSENT}")]);
    qemu.args(["-serial", &format!("file:{CONSOLE}")]);
    qemu.args(["-device", "virtio-serial-pci", "-chardev", "stdio,id=link,signal=off"]);
    qemu.args(["-device", &format!("virtserialport,chardev=link,name={PORT}")]);
    qemu
}

/// Reads events on a thread, so that waiting for one can have a limit. The channel ends with the machine.
fn listen(stdout: std::process::ChildStdout) -> Receiver<Event> {
    // Some room, not more: a program in the machine waits when its output is not read.
    let (sender, events) = mpsc::sync_channel(16);
    thread::spawn(move || {
        let mut stdout = BufReader::new(stdout);
        while let Ok(Some(event)) = Event::receive(&mut stdout) {
            if sender.send(event).is_err() {
                break;
            }
        }
    });
    events
}

/// The end of what was written to `file`, without what QEMU says about each feature of the CPU that it has not.
fn last_lines(speaker: &str, mut file: &File) -> String {
    const LINES: usize = 25;
    let mut bytes = Vec::new();
    // What cannot be read is not shown: this is part of an error already.
    drop(file.rewind().and_then(|()| file.read_to_end(&mut bytes)));
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|line| !line.contains("TCG doesn't support")).collect();
    let lines = &lines[lines.len().saturating_sub(LINES)..];
    let lines: String = lines.iter().map(|line| format!("\n  {}", line.trim_end())).collect();
    if lines.is_empty() { lines } else { format!("\nThe last words of {speaker}:{lines}") }
}
