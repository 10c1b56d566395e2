//! Corpora: inputs in files, one each, in a folder a target.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::edges::{self, Seen};
use crate::engine::run_once;
use crate::targets::Target;

/// The largest file that is kept in the repository.
pub const MAX_FILE_SIZE: usize = 4096;

/// The most files of a target that are kept in the repository.
const MAX_FILES: usize = 40;

/// All inputs in a folder, by name; of one that is not there, none.
///
/// # Errors
/// When a file cannot be read.
pub fn read(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files = BTreeSet::new();
    for entry in entries {
        files.insert(entry.with_context(|| format!("cannot list {}", folder.display()))?.path());
    }
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok((path, bytes))
    };
    files.into_iter().map(read).collect()
}

/// Writes an input to a file that is named for its contents.
///
/// # Errors
/// When it cannot be written.
pub fn write(folder: &Path, input: &[u8]) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(name(input));
    fs::write(&path, input).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// What the file of an input is called that nobody has named.
#[must_use]
pub fn name(input: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The few inputs that are worth a place in the repository: small, and each reaches what no smaller one does.
#[must_use]
pub fn distilled(target: &Target, mut inputs: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    inputs.retain(|input| input.len() <= MAX_FILE_SIZE);
    inputs.sort_by_key(Vec::len);
    let mut seen = Seen::default();
    inputs.retain(|input| {
        edges::reset();
        let before = seen.count();
        let held = run_once(target, input).is_ok();
        seen.add();
        held && seen.count() > before
    });
    // Of too many, every n-th: of all sizes.
    let step = inputs.len().div_ceil(MAX_FILES).max(1);
    inputs.into_iter().step_by(step).collect()
}
