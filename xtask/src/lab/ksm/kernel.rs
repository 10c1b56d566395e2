//! KSM in the host's kernel: its counters in `/sys/kernel/mm/ksm`, and the file that switches it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use super::sample::Counters;

/// KSM as a kernel shows it.
#[derive(Clone, Debug)]
pub(super) struct Ksm {
    folder: PathBuf,
}

/// Whether pages are being merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// The kernel was built without CONFIG_KSM.
    Absent,
    /// `run` is 0: `ksmd` does not run, and what it merged before stays merged.
    Off,
    /// `run` is 1: `ksmd` runs.
    On,
    /// `run` is 2: `ksmd` does not run, and all pages have been given back their own copies.
    Unmerged,
}

impl State {
    /// What to tell and to do when pages are not being merged.
    pub(super) fn advice(self) -> Option<&'static str> {
        match self {
            Self::On => None,
            Self::Absent => Some(
                "this kernel has no KSM (there is no /sys/kernel/mm/ksm), so no pages are merged. It must be built \
                 with CONFIG_KSM=y, as those of the distributions are",
            ),
            Self::Off => Some(
                "KSM is off in this kernel (/sys/kernel/mm/ksm/run is 0), so no pages are merged; what follows is \
                 the memory without it. To switch it on: `echo 1 | sudo tee /sys/kernel/mm/ksm/run`; or, as root and \
                 for this run only, `cargo xtask lab ksm --enable-ksm`",
            ),
            Self::Unmerged => Some(
                "KSM is off in this kernel (/sys/kernel/mm/ksm/run is 2: all pages unmerged), so no pages are \
                 merged; what follows is the memory without it. To switch it on: `echo 1 | sudo tee \
                 /sys/kernel/mm/ksm/run`; or, as root and for this run only, `cargo xtask lab ksm --enable-ksm`",
            ),
        }
    }
}

impl Ksm {
    pub(super) fn of_this_host() -> Self {
        Self { folder: PathBuf::from("/sys/kernel/mm/ksm") }
    }

    /// # Errors
    /// When the kernel has KSM and says something unheard of.
    pub(super) fn state(&self) -> Result<State> {
        if !self.folder.is_dir() {
            return Ok(State::Absent);
        }
        match self.number("run")? {
            0 => Ok(State::Off),
            1 => Ok(State::On),
            2 => Ok(State::Unmerged),
            other => {
                anyhow::bail!("{} is {other}, which is none of 0, 1, 2", self.folder.join("run").display())
            }
        }
    }

    /// The counters of all memory that KSM knows, ours or not; `None` when one of them is not there.
    pub(super) fn counters(&self) -> Option<Counters> {
        let number = |name| self.number(name).ok();
        Some(Counters {
            full_scans: number("full_scans")?,
            pages_shared: number("pages_shared")?,
            pages_sharing: number("pages_sharing")?,
            pages_unshared: number("pages_unshared")?,
            pages_volatile: number("pages_volatile")?,
        })
    }

    /// Switches KSM on until what is returned is dropped.
    ///
    /// # Errors
    /// When there is no KSM, or this user may not switch it.
    pub(super) fn switch_on(&self) -> Result<Switched> {
        let file = self.folder.join("run");
        let before = fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}: this kernel has no KSM", file.display()))?;
        let on = fs::write(&file, "1");
        on.with_context(|| format!("cannot write 1 to {}: --enable-ksm needs root", file.display()))?;
        Ok(Switched { file, before: before.trim().to_owned() })
    }

    fn number(&self, name: &str) -> Result<u64> {
        let file = self.folder.join(name);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        text.trim().parse().with_context(|| format!("{} is no number: {text:?}", file.display()))
    }
}

/// KSM switched on; what `run` was before is put back when this is dropped.
#[derive(Debug)]
pub(super) struct Switched {
    file: PathBuf,
    before: String,
}

impl Drop for Switched {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.file, &self.before) {
            eprintln!("xtask: cannot put {} back to {}: {error}", self.file.display(), self.before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as the kernel's, with these files.
    fn ksm(files: &[(&str, &str)]) -> (tempfile::TempDir, Ksm) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("writable");
        }
        let ksm = Ksm { folder: folder.path().to_owned() };
        (folder, ksm)
    }

    #[test]
    fn what_is_not_on_is_told_with_what_to_type() {
        for (run, state) in [("0\n", State::Off), ("1\n", State::On), ("2\n", State::Unmerged)] {
            let (_folder, ksm) = ksm(&[("run", run)]);
            assert_eq!(ksm.state().expect("a number"), state);
            let types = |text: &str| text.contains("sudo tee") && text.contains("--enable-ksm");
            assert_eq!(state.advice().is_some_and(types), state != State::On, "{run}");
        }
        assert!(ksm(&[("run", "3")]).1.state().is_err());
        let absent = Ksm { folder: PathBuf::from("/nonexistent") };
        assert_eq!(absent.state().expect("absence is a state"), State::Absent);
        assert!(absent.switch_on().is_err());
    }

    #[test]
    fn the_switch_goes_back_to_what_it_was() {
        for before in ["0", "2"] {
            let (folder, ksm) = ksm(&[("run", before)]);
            let run = || fs::read_to_string(folder.path().join("run")).expect("readable");
            let switched = ksm.switch_on().expect("writable");
            assert_eq!(run(), "1");
            drop(switched);
            assert_eq!(run(), before);
        }
    }

    #[test]
    fn counters_are_all_there_or_none() {
        let names = ["full_scans", "pages_shared", "pages_sharing", "pages_unshared", "pages_volatile"];
        let (_folder, ksm) = ksm(&names.map(|name| (name, "12\n")));
        assert_eq!(ksm.counters().map(|counters| counters.pages_volatile), Some(12));
        fs::remove_file(ksm.folder.join("pages_sharing")).expect("it is there");
        assert!(ksm.counters().is_none());
    }
}
