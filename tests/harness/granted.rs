//! A directory that is granted to a guest, and what a guest says of it.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vmm::{Grant, GrantMode, Limits};

use super::{Boot, Finished, boot};

/// A directory to be granted, beside things that nobody has granted:
///
/// ```text
/// ├ granted
/// │ ├ file        "inside"
/// │ └ folder/file "inside"
/// └ outside/file  "secret"
/// ```
pub(crate) struct Tree {
    pub(crate) root: TempDir,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Self { root: tempfile::tempdir().expect("a directory") };
        for folder in ["granted", "granted/folder", "outside"] {
            fs::create_dir(tree.root.path().join(folder)).expect("writable");
        }
        fs::write(tree.inside("file"), "inside").expect("writable");
        fs::write(tree.inside("folder/file"), "inside").expect("writable");
        fs::write(tree.outside("file"), "secret").expect("writable");
        tree
    }

    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        self.root.path().join("granted").join(path)
    }

    pub(crate) fn outside(&self, path: &str) -> PathBuf {
        self.root.path().join("outside").join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.inside(path)).expect("a file of text")
    }

    pub(crate) fn grant(&self) -> Grant {
        Grant { path: self.inside(""), mode: GrantMode::ReadWrite, limits: Limits::default() }
    }

    /// Runs `steps` (see the probe) with the directory granted for reading and writing. Gives a line a step.
    pub(crate) fn steps(&self, steps: &[&str]) -> Vec<String> {
        steps_with(Some(self.grant()), steps)
    }

    #[track_caller]
    pub(crate) fn nothing_outside_has_changed(&self) {
        assert_eq!(fs::read_to_string(self.outside("file")).expect("still there"), "secret");
        assert_eq!(names_in(&self.outside("")), ["file"]);
        assert_eq!(names_in(self.root.path()), ["granted", "outside"]);
    }
}

pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

pub(crate) fn granting(guest: Boot, grant: Grant) -> Finished {
    guest.with(|config| config.directory = Some(grant)).run()
}

pub(crate) fn steps_with(grant: Option<Grant>, steps: &[&str]) -> Vec<String> {
    let arguments = [&["files"], steps].concat();
    let finished = boot("probe").arguments(&arguments).with(|config| config.directory = grant).run();
    finished.succeeded().lines().map(str::to_owned).collect()
}
