//! The workspace's own files, for tests that read sources and documents.

use std::fs;
use std::path::Path;

use xtask::workspace;

/// The text of a file, named relative to the workspace.
pub(crate) fn read(relative: &str) -> String {
    fs::read_to_string(workspace::root().join(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
}

/// All files below `folder`, relative to the workspace, in order; `""` is the workspace.
pub(crate) fn files(folder: &str) -> Vec<String> {
    let mut files = Vec::new();
    collect(&workspace::root().join(folder), &mut files);
    files.sort();
    files
}

/// The Rust files below `folder`.
pub(crate) fn rust_files(folder: &str) -> Vec<String> {
    let mut files = files(folder);
    files.retain(|file| file.ends_with(".rs"));
    files
}

/// Not the project: what is built, and what Git keeps.
const FOREIGN: [&str; 2] = ["target", ".git"];

fn collect(folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("the workspace is readable") {
        let path = entry.expect("the workspace is readable").path();
        let relative = path.strip_prefix(workspace::root()).expect("below the workspace");
        let relative = relative.to_str().expect("UTF-8").to_owned();
        if FOREIGN.contains(&relative.as_str()) {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(relative);
        }
    }
}
