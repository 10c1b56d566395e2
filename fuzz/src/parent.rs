//! The parent: starts a child for each target, and sees how it ends. What a child dies of is made smaller and saved.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::child::{self, HUNG, PANICKED};
use crate::targets::Target;
use crate::{corpus, shrink};

/// Each try to make a deadly input smaller is a process, and may take as long as a hang.
const MAX_TRIES: usize = 60;

/// What all hunts have in common.
#[derive(Clone, Debug)]
pub struct Folders {
    /// The corpora that are kept in the repository, a folder a target.
    pub corpus: PathBuf,
    /// Where results go, a folder a target.
    pub results: PathBuf,
    /// A run that takes this long does not end.
    pub hang: Duration,
}

/// An input that a target died of.
#[derive(Clone, Debug)]
pub struct Found {
    /// The file.
    pub file: PathBuf,
    /// What it died of.
    pub message: String,
}

impl Folders {
    /// Hunts for a while.
    ///
    /// # Errors
    /// When a child cannot be started, or did not come as far as to run anything.
    pub fn hunt(&self, target: &Target, time: Duration, seed: u64) -> Result<Option<Found>> {
        let folder = self.results.join(target.name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let current = folder.join("current");
        for file in [current.clone(), child::message_file(&current)] {
            let _ = fs::remove_file(file);
        }
        let mut child = Command::new(std::env::current_exe().context("this program has no path")?);
        child.args(["--child", target.name, "--seed", &seed.to_string()]);
        child.arg("--time").arg(format!("{}ms", time.as_millis()));
        child.arg("--hang").arg(format!("{}ms", self.hang.as_millis()));
        child.arg("--corpus").arg(&self.corpus).arg("--results").arg(&self.results);
        let status = child.status().context("cannot start the child")?;
        if status.success() {
            return Ok(None);
        }
        let input = child::current(&current).with_context(|| format!("the child ended: {status}"))?;
        self.save(target, seed, status, &current, input).map(Some)
    }

    fn save(
        &self,
        target: &Target,
        seed: u64,
        status: ExitStatus,
        current: &Path,
        input: Vec<u8>,
    ) -> Result<Found> {
        let found = self.results.join("found").join(target.name);
        let (input, message) = match status.code() {
            Some(PANICKED) => (input, fs::read_to_string(child::message_file(current)).unwrap_or_default()),
            _ => (self.smaller(target, &input, status), death(status)),
        };
        let file = corpus::write(&found, &input)?;
        let again = format!("cargo xtask fuzz {} --run {}", target.name, file.display());
        let text = format!("{message}\n\nseed {seed}\nagain: {again}\n");
        fs::write(file.with_extension("txt"), &text).context("cannot write what was found")?;
        Ok(Found { file, message: format!("{message}\nagain: {again}") })
    }

    /// An input of which a child dies in the same way.
    fn smaller(&self, target: &Target, input: &[u8], status: ExitStatus) -> Vec<u8> {
        let file = self.results.join(target.name).join("candidate");
        let dies = |candidate: &[u8]| {
            let run = || -> Result<bool> {
                fs::write(&file, candidate)?;
                Ok(self.run(target, &file)?.is_some_and(|other| death(other) == death(status)))
            };
            run().unwrap_or(false)
        };
        shrink::within(input, MAX_TRIES, dies)
    }

    fn run(&self, target: &Target, file: &Path) -> Result<Option<ExitStatus>> {
        let mut child = Command::new(std::env::current_exe().context("this program has no path")?);
        child.arg(target.name).arg("--run").arg(file).stdout(Stdio::null()).stderr(Stdio::null());
        child.arg("--hang").arg(format!("{}ms", self.hang.as_millis()));
        let status = child.status().context("cannot start the child")?;
        Ok((!status.success()).then_some(status))
    }
}

/// What a child died of.
fn death(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(HUNG), _) => "it does not end".to_owned(),
        (_, Some(libc::SIGABRT)) => {
            "it aborts: out of memory, a panic while panicking, or a stack overflow".to_owned()
        }
        (_, Some(signal)) => format!("it dies of signal {signal}"),
        (code, _) => format!("it ends the process with {code:?}"),
    }
}
