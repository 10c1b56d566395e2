//! Where the tour's guests run: on this computer's KVM, or on the one in QEMU.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use second_kvm::{Job, Order, Stream};
use tempfile::TempDir;

use crate::qemu::kernel::Choice;
use crate::qemu::machine::{self, Machine, Terminal};
use crate::workspace::{self, Profile};
use crate::{boot, qemu};

/// The guests as files: a name, and what is in it.
pub(super) type Files = [(String, Vec<u8>)];

/// A VMM on some KVM, with files that it can boot.
pub(super) enum Backend {
    /// The VMM here.
    Host { vmm: PathBuf, folder: TempDir },
    /// The VMM in QEMU, and the folder that its files came from.
    Qemu { machine: Machine, _folder: TempDir },
}

/// What a program has written, and its exit code.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Far more than any guest takes, on an emulated CPU too.
const LIMIT: Duration = Duration::from_secs(120);

/// Where QEMU's machine has the files.
const INSIDE: &str = "/guests";

impl Backend {
    /// This computer's KVM.
    pub(super) fn host(files: &Files) -> Result<Self> {
        boot::need_kvm()?;
        Ok(Self::Host { vmm: workspace::build_vmm(Profile::Debug)?, folder: written(files)? })
    }

    /// The KVM in QEMU.
    pub(super) fn qemu(files: &Files, linux: &Choice) -> Result<Self> {
        machine::need_qemu()?;
        let programs = workspace::build_static(&["vmm", "second-kvm"], Profile::Debug)?;
        let folder = written(files)?;
        let mut inside = vec![
            ("/init".to_owned(), programs.join("second-kvm")),
            ("/vmm".to_owned(), programs.join("vmm")),
        ];
        inside.extend(files.iter().map(|(name, _)| (format!("{INSIDE}/{name}"), folder.path().join(name))));
        Ok(Self::Qemu { machine: Machine::boot(&linux.find()?, &inside)?, _folder: folder })
    }

    /// The path of a file, as the VMM sees it.
    pub(super) fn path(&self, name: &str) -> String {
        match self {
            Self::Host { folder, .. } => folder.path().join(name).display().to_string(),
            Self::Qemu { .. } => format!("{INSIDE}/{name}"),
        }
    }

    /// Runs the VMM with these words, with nothing on its stdin.
    pub(super) fn vmm(&self, words: &[String]) -> Result<Output> {
        match self {
            Self::Host { vmm, .. } => {
                let output = Command::new(vmm).args(words).stdin(Stdio::null()).output();
                let output = output.with_context(|| format!("cannot start {}", vmm.display()))?;
                Ok(Output {
                    code: output.status.code(),
                    stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                    stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
                })
            }
            Self::Qemu { machine, .. } => {
                let command = std::iter::once("/vmm").chain(words.iter().map(String::as_str));
                let job =
                    Job { environment: qemu::environment(), command: command.map(Into::into).collect() };
                let mut reader = Reader::default();
                let no_input = || drop(machine.link().send(&Order::InputEnd));
                let code = machine.run(job, &mut reader, no_input, Some(LIMIT))?;
                Ok(reader.output(code))
            }
        }
    }
}

fn written(files: &Files) -> Result<TempDir> {
    let folder = tempfile::tempdir().context("cannot make a folder for the guests")?;
    for (name, bytes) in files {
        fs::write(folder.path().join(name), bytes).with_context(|| format!("cannot write {name}"))?;
    }
    Ok(folder)
}

/// Keeps what a program in QEMU writes.
#[derive(Default)]
struct Reader {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl Reader {
    fn output(self, code: i32) -> Output {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Output { code: Some(code), stdout: text(self.stdout), stderr: text(self.stderr) }
    }
}

impl Terminal for Reader {
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            Stream::Stdout => self.stdout.extend_from_slice(bytes),
            Stream::Stderr => self.stderr.extend_from_slice(bytes),
        }
        Ok(())
    }
}
