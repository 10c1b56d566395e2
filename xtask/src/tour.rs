//! `cargo xtask tour`: the places where control crosses between host and guest, in the order of a run.
//!
//! The places mark themselves: a comment there says `CROSSING`, a number, a direction and what each side may rely on.
//! So the tour cannot go out of date.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace;

/// A marked place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// Position in a run, from 1.
    pub number: u32,
    /// Its file, relative to the workspace.
    pub file: PathBuf,
    /// The line of the mark, from 1.
    pub line: usize,
    /// The comment from the mark to its end.
    pub text: String,
    /// The first line of code below the comment.
    pub code: String,
}

/// Prints the tour.
///
/// # Errors
/// When a source file cannot be read.
pub fn run() -> Result<ExitCode> {
    for crossing in crossings()? {
        println!("{}. {}:{}", crossing.number, crossing.file.display(), crossing.line);
        println!("   {}", crossing.text);
        println!("   > {}\n", crossing.code);
    }
    Ok(ExitCode::SUCCESS)
}

/// All marked places, in the order of a run.
///
/// # Errors
/// When a source file cannot be read.
pub fn crossings() -> Result<Vec<Crossing>> {
    let mut crossings = Vec::new();
    for folder in ["vmm/src", "guest-kernel/src"] {
        for file in rust_files(&workspace::root().join(folder))? {
            let text =
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            crossings.extend(marks(&text, file.strip_prefix(workspace::root()).unwrap_or(&file)));
        }
    }
    crossings.sort_by(|a, b| (a.number, &a.file, a.line).cmp(&(b.number, &b.file, b.line)));
    Ok(crossings)
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

fn marks(text: &str, file: &Path) -> Vec<Crossing> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut crossings = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some((number, text)) = mark(line) else {
            continue;
        };
        let rest = lines.get(index + 1..).unwrap_or_default();
        let paragraph = rest.iter().map_while(|line| comment(line)).take_while(|text| !text.is_empty());
        let text = std::iter::once(text).chain(paragraph).collect::<Vec<_>>().join(" ");
        let code = rest.iter().find(|line| is_code(line)).copied().unwrap_or_default().to_owned();
        crossings.push(Crossing { number, file: file.to_owned(), line: index + 1, text, code });
    }
    crossings
}

/// The number and the text of a line such as `// CROSSING 1, host -> guest: KVM_RUN.`
fn mark(line: &str) -> Option<(u32, &str)> {
    let (number, text) = comment(line)?.strip_prefix("CROSSING ")?.split_once(", ")?;
    Some((number.parse().ok()?, text))
}

fn comment(line: &str) -> Option<&str> {
    let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//"))?;
    Some(text.trim())
}

fn is_code(line: &str) -> bool {
    !line.is_empty() && comment(line).is_none() && !line.starts_with("#[")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tour_has_the_four_crossings_in_order() {
        let crossings = crossings().expect("the sources are readable");
        let places: Vec<_> = crossings
            .iter()
            .map(|crossing| (crossing.number, crossing.file.to_str().expect("UTF-8")))
            .collect();
        assert_eq!(
            places,
            [
                (1, "vmm/src/vcpu.rs"),
                (2, "guest-kernel/src/boot.rs"),
                (3, "guest-kernel/src/hypercall.rs"),
                (4, "vmm/src/run_loop.rs"),
            ]
        );
        for crossing in crossings {
            assert!(
                crossing.text.starts_with("host -> guest: ") || crossing.text.starts_with("guest -> host: ")
            );
            assert!(!crossing.code.is_empty(), "{crossing:?}");
        }
    }
}
