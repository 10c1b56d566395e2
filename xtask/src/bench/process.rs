//! A program as a whole: from its start to its first byte of output, to its end, and the memory it took.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A command line that is run often.
#[derive(Clone, Debug)]
pub(super) struct Program {
    words: Vec<PathBuf>,
}

/// One run of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// From before the process existed to its first byte of output.
    pub(super) first_byte: Duration,
    /// To when it was gone.
    pub(super) end: Duration,
}

impl Program {
    /// A program and its arguments.
    pub(super) fn new(words: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect() }
    }

    fn command(&self) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map(PathBuf::as_path).unwrap_or("".as_ref()));
        command.args(words).stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }

    /// Runs it once, and checks that it prints `expected` and ends well.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn run(&self, expected: &[u8]) -> Result<Run> {
        let mut command = self.command();
        command.stdout(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let mut stdout = child.stdout.take().context("stdout is a pipe")?;
        let mut printed = vec![0];
        let count = stdout.read(&mut printed)?;
        let first_byte = start.elapsed();
        printed.truncate(count);
        stdout.read_to_end(&mut printed)?;
        let status = child.wait()?;
        let end = start.elapsed();
        if !status.success() || printed != expected {
            bail!(
                "{command:?} should print {:?} and end well; but: {status}, {:?}",
                String::from_utf8_lossy(expected),
                String::from_utf8_lossy(&printed)
            );
        }
        Ok(Run { first_byte, end })
    }

    /// The most memory that it had in use, in bytes: VmHWM of proc_pid_status(5), read when it is about to end.
    ///
    /// # Errors
    /// When it cannot be started or stopped there.
    pub(super) fn peak_memory(&self) -> Result<u64> {
        let mut command = self.command();
        command.stdout(Stdio::null());
        // SAFETY: Between fork and exec, one system call that takes no memory.
        unsafe { command.pre_exec(|| traced(libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0))) };
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let pid = libc::pid_t::try_from(child.id())?;
        // The first stop is at exec, the second at exit, when its memory is still there.
        wait_for_stop(pid)?;
        // SAFETY: The requests name a stopped child of ours and read no memory.
        unsafe {
            traced(libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, libc::PTRACE_O_TRACEEXIT))?;
            traced(libc::ptrace(libc::PTRACE_CONT, pid, 0, 0))?;
        }
        wait_for_stop(pid)?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        // SAFETY: As above.
        traced(unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, 0) })?;
        child.wait()?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM is in the status")?;
        let kib: u64 =
            line.trim().trim_end_matches(" kB").parse().with_context(|| format!("VmHWM is {line}"))?;
        Ok(kib << 10)
    }
}

fn traced(result: libc::c_long) -> std::io::Result<()> {
    if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn wait_for_stop(pid: libc::pid_t) -> Result<()> {
    let mut status = 0;
    // SAFETY: Writes the status into the variable given.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if waited != pid || !libc::WIFSTOPPED(status) {
        bail!("process {pid} did not stop: status {status:#x}");
    }
    Ok(())
}
