//! `Counts`: what a program asks of the kernel in one run, counted by ptrace(2): its system calls, page faults, memory.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::guard::{self, Guarded};
use super::process::Program;
use crate::ptrace::{self, AT_SYSTEM_CALL, Change, Until};

/// What one run took, of all its threads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// System calls behind exec, with the one that ends it.
    pub(super) system_calls: u64,
    /// Page faults behind exec.
    pub(super) page_faults: u64,
    /// The most memory that it had in use, in bytes: VmHWM of proc_pid_status(5), read when it is about to end.
    pub(super) peak_memory: u64,
}

impl Program {
    /// Runs it once and counts.
    ///
    /// # Errors
    /// When it cannot be started, or not be followed to its end.
    pub(super) fn counts(&self) -> Result<Counts> {
        let mut command = self.command();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            ptrace::spawn(&mut command).with_context(|| format!("cannot start `{}`", self.typed()))?;
        let guarded = Guarded::new(&child)?;
        let pid = libc::pid_t::try_from(child.id())?;
        let followed = Tracee::follow(pid);
        end_all(pid);
        guarded.release()?;
        followed.with_context(|| format!("cannot count what `{}` does", self.typed()))
    }
}

/// A process that stops at each system call.
struct Tracee {
    pid: libc::pid_t,
    counts: Counts,
    faults_at_exec: u64,
}

impl Tracee {
    fn follow(pid: libc::pid_t) -> Result<Counts> {
        let stop = ptrace::wait(pid)?;
        if !libc::WIFSTOPPED(stop.status) {
            bail!("it did not stop at exec: status {:#x}", stop.status);
        }
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEEXIT
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_EXITKILL;
        ptrace::set_options(pid, options)?;
        let mut tracee = Self { pid, counts: Counts::default(), faults_at_exec: page_faults(pid)? };
        go_on(pid, 0)?;
        loop {
            let stop = ptrace::wait(-pid)?;
            if libc::WIFSTOPPED(stop.status) {
                tracee.answer(&stop)?;
            } else if stop.thread == pid {
                return Ok(tracee.counts);
            }
        }
    }

    fn answer(&mut self, stop: &Change) -> Result<()> {
        let event = stop.status >> 16;
        let signal = match libc::WSTOPSIG(stop.status) {
            AT_SYSTEM_CALL => {
                self.counts.system_calls += u64::from(ptrace::is_entry(stop.thread)?);
                0
            }
            _ if event == libc::PTRACE_EVENT_EXIT && stop.thread == self.pid => {
                self.counts.peak_memory = peak_memory(self.pid)?;
                self.counts.page_faults = page_faults(self.pid)?.saturating_sub(self.faults_at_exec);
                0
            }
            // An event is no signal; and a new thread starts with a stop that is ours.
            libc::SIGSTOP => 0,
            _ if event != 0 => 0,
            signal => signal,
        };
        go_on(stop.thread, signal)
    }
}

/// Ends what is left of it, and what it leaves behind: it would stop at its next call for ever.
fn end_all(group: libc::pid_t) {
    guard::kill(group);
    while let Ok(stop) = ptrace::wait(-group) {
        if libc::WIFSTOPPED(stop.status) && go_on(stop.thread, 0).is_err() {
            return;
        }
    }
}

fn go_on(thread: libc::pid_t, signal: libc::c_int) -> Result<()> {
    match ptrace::go_on(thread, Until::SystemCall, signal) {
        // It was killed while it stood: the next wait tells.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result.map_err(Into::into),
    }
}

fn peak_memory(pid: libc::pid_t) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM is in the status")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("VmHWM is {line}"))?;
    Ok(kib << 10)
}

/// Those for which nothing was read from disk, and those for which something was.
fn page_faults(pid: libc::pid_t) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which may have any characters: state is field 3 of proc_pid_stat(5), minflt 10, majflt 12.
    let fields: Vec<_> = stat.rsplit_once(") ").context("stat has a name")?.1.split(' ').collect();
    let field =
        |number: usize| -> Result<u64> { Ok(fields.get(number - 3).context("stat is long")?.parse()?) };
    Ok(field(10)? + field(12)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(script: &str) -> Counts {
        Program::new(["sh", "-c", script]).counts().expect("it is followed to its end")
    }

    #[test]
    fn each_run_of_one_program_makes_the_same_calls() {
        let (first, second) = (counts(":"), counts(":"));
        assert_eq!(first.system_calls, second.system_calls);
        assert!(first.system_calls > 5 && first.page_faults > 5 && first.peak_memory > 64 << 10, "{first:?}");
    }

    #[test]
    fn a_call_more_is_one_more() {
        assert_eq!(counts("kill -0 $$; kill -0 $$").system_calls, counts("kill -0 $$").system_calls + 1);
    }

    #[test]
    fn children_are_followed_and_signals_arrive() {
        let alone = counts(":").system_calls;
        assert!(counts("sh -c :; sh -c :; :").system_calls > 2 * alone);
        // Without the signal it would be late.
        counts("trap 'exit 3' USR1; kill -USR1 $$; sleep 99");
        // What it leaves behind is ended, too.
        counts("sleep 99 &");
    }
}
