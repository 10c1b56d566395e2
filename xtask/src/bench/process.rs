//! A program as a whole: from its start to its first byte of output and to its end.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::guard::Guarded;
use crate::workspace;

/// A command line that is run often.
#[derive(Debug)]
pub(super) struct Program {
    words: Vec<OsString>,
}

/// One run of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// From before the process existed to its first byte of output.
    pub(super) first_byte: Duration,
    /// To when it was gone.
    pub(super) end: Duration,
}

/// A run, and what became of it.
struct Ended {
    run: Run,
    printed: Vec<u8>,
    complaint: String,
    status: ExitStatus,
}

/// At most so much of what is printed is looked at.
const LOOKED_AT: u64 = 64 << 10;

impl Program {
    /// A program and its arguments.
    pub(super) fn new(words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect() }
    }

    /// Its command, in a process group of its own: so all of it can be ended.
    pub(super) fn command(&self) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map_or("".as_ref(), OsString::as_os_str));
        command.args(words).stdin(Stdio::null()).process_group(0);
        command
    }

    /// What a person would type.
    pub(super) fn typed(&self) -> String {
        workspace::words(&self.command())
    }

    /// Runs it once, and checks that it prints `expected` and ends well.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn run(&self, expected: &[u8]) -> Result<Run> {
        let Ended { run, printed, complaint, status } = self.run_to_end()?;
        if !status.success() || printed != expected {
            let [expected, printed] = [expected, &printed].map(String::from_utf8_lossy);
            let words = self.typed();
            bail!(
                "`{words}` should print {expected:?} and end well; but: {status}, {printed:?}. {complaint}"
            );
        }
        Ok(run)
    }

    /// Runs it once, and checks that it prints anything; it may end as it likes.
    ///
    /// # Errors
    /// When it does not.
    pub(super) fn run_foreign(&self) -> Result<(Run, ExitStatus)> {
        let Ended { run, printed, complaint, status } = self.run_to_end()?;
        if printed.is_empty() {
            bail!(
                "`{}` prints nothing, so nobody knows when it was ready: {status}. {complaint}",
                self.typed()
            );
        }
        Ok((run, status))
    }

    fn run_to_end(&self) -> Result<Ended> {
        let mut command = self.command();
        let complaints = tempfile::tempfile().context("no file for what is said on stderr")?;
        command.stdout(Stdio::piped()).stderr(complaints.try_clone()?);
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot start `{}`", self.typed()))?;
        let guarded = Guarded::new(&child)?;
        let timed = time(&mut child, start);
        guarded.release().with_context(|| format!("`{}`", self.typed()))?;
        let (run, printed, status) = timed?;
        Ok(Ended { run, printed, complaint: last_words(complaints)?, status })
    }
}

fn time(child: &mut Child, start: Instant) -> Result<(Run, Vec<u8>, ExitStatus)> {
    let mut stdout = child.stdout.take().context("stdout is a pipe")?;
    let mut printed = vec![0];
    let count = stdout.read(&mut printed)?;
    let first_byte = start.elapsed();
    printed.truncate(count);
    read_to_end(&mut stdout, &mut printed)?;
    let status = child.wait()?;
    Ok((Run { first_byte, end: start.elapsed() }, printed, status))
}

fn read_to_end(stdout: &mut ChildStdout, printed: &mut Vec<u8>) -> io::Result<()> {
    stdout.by_ref().take(LOOKED_AT).read_to_end(printed)?;
    io::copy(stdout, &mut io::sink()).map(drop)
}

/// The end of what was said on stderr.
fn last_words(mut complaints: File) -> Result<String> {
    let mut said = Vec::new();
    complaints.rewind()?;
    complaints.take(LOOKED_AT).read_to_end(&mut said)?;
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    let lines: Vec<_> = said.lines().rev().take(3).collect();
    Ok(lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Program {
        Program::new(["sh", "-c", script])
    }

    #[test]
    fn a_program_that_prints_something_else_or_ends_badly_is_no_run() {
        let run = shell("printf a; sleep 0.05; printf b").run(b"ab").expect("it is what was expected");
        assert!(run.first_byte < run.end && run.end >= Duration::from_millis(50), "{run:?}");
        let error = shell("printf a; echo why >&2; exit 3").run(b"a").expect_err("it ends badly");
        assert!(error.to_string().ends_with("exit status: 3, \"a\". why"), "{error}");
        assert!(shell("printf b").run(b"a").is_err());
        assert!(
            Program::new(["/nonesuch"])
                .run(b"")
                .expect_err("there is none")
                .to_string()
                .contains("cannot start")
        );
    }

    #[test]
    fn a_foreign_program_may_end_as_it_likes_and_must_print() {
        let (_, status) = shell("printf a; exit 3").run_foreign().expect("it prints");
        assert_eq!(status.code(), Some(3));
        let error = shell("echo no kernel >&2; exit 1").run_foreign().map(|_| ()).expect_err("it is silent");
        assert!(
            error.to_string().contains("prints nothing") && error.to_string().ends_with("no kernel"),
            "{error}"
        );
        let much = shell("head -c 300000 /dev/zero").run_foreign();
        assert!(much.is_ok_and(|(_, status)| status.success()), "what is not looked at is read");
    }
}
