//! A copy of the workspace for tests that edit sources as a user would.
//!
//! It lies at a fixed place among the temporary files, and so does what it builds: a second run builds little. Below the
//! workspace it could not lie, for cargo would read both configurations. One test has it at a time.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use xtask::workspace;

/// What of the workspace's folder is not copied: what was built, and what no build reads.
fn is_left_out(name: &str) -> bool {
    name == "target" || name == "docs" || (name.starts_with('.') && name != ".cargo")
}

/// A fresh copy of the workspace, for one test alone.
pub(crate) struct WorkspaceCopy {
    root: PathBuf,
    _alone: MutexGuard<'static, ()>,
}

impl WorkspaceCopy {
    pub(crate) fn take() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = DefaultHasher::new();
        workspace::root().hash(&mut name);
        let root = std::env::temp_dir().join(format!("duet-workspace-copy-{:x}", name.finish()));
        for part in fs::read_dir(workspace::root()).expect("the workspace can be read").flatten() {
            let name = part.file_name();
            if !is_left_out(&name.to_string_lossy()) {
                copy(&part.path(), &root.join(name));
            }
        }
        lend_built_dependencies(&root.join("target"));
        Self { root, _alone: alone }
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// `cargo` in the copy.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = workspace::cargo();
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", self.root.join("target"));
        // All is built once more there, which takes less time with no more than lines.
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
        cargo
    }

    /// `cargo xtask` in the copy.
    pub(crate) fn xtask(&self) -> Command {
        let mut cargo = self.cargo();
        cargo.args(["--quiet", "xtask"]);
        cargo
    }
}

/// Dependencies from elsewhere are the same in a copy, and take most of a build: a new copy gets what cargo has made of them here.
/// Where that is not possible, such as between file systems, they are built.
fn lend_built_dependencies(target: &Path) {
    let (own, new) = (workspace::target_directory().join("debug"), target.join("debug"));
    if new.exists() || fs::create_dir_all(&new).is_err() {
        return;
    }
    // Libraries are replaced and never written to again, so one file can be in both places. Cargo's notes are copied, with
    // their times, by which cargo believes them.
    for library in fs::read_dir(own.join("deps")).into_iter().flatten().flatten() {
        let is_library = library
            .path()
            .extension()
            .is_some_and(|kind| ["rlib", "rmeta", "so"].iter().any(|own| kind == *own));
        if is_library && fs::create_dir_all(new.join("deps")).is_ok() {
            let _ = fs::hard_link(library.path(), new.join("deps").join(library.file_name()));
        }
    }
    for folder in ["build", ".fingerprint"] {
        let _ = Command::new("cp").arg("-a").arg(own.join(folder)).arg(&new).output();
    }
}

/// Makes `to` the same as `from`, and touches only files that differ: cargo rebuilds by modification time.
fn copy(from: &Path, to: &Path) {
    if from.is_file() {
        let bytes = fs::read(from).expect("the workspace is readable");
        if fs::read(to).ok().as_ref() != Some(&bytes) {
            fs::create_dir_all(to.parent().expect("a file lies in a folder")).expect("writable");
            fs::write(to, bytes).expect("writable");
        }
        return;
    }
    let names = |folder: &Path| -> Vec<std::ffi::OsString> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.expect("readable").file_name()).collect()
    };
    let wanted = names(from);
    for extra in names(to).iter().filter(|name| !wanted.contains(name)) {
        let extra = to.join(extra);
        let removed = if extra.is_dir() { fs::remove_dir_all(&extra) } else { fs::remove_file(&extra) };
        removed.expect("writable");
    }
    for name in wanted {
        copy(&from.join(&name), &to.join(&name));
    }
}
