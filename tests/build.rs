//! Puts the text of every lesson into the tests: they are compared with what is printed also where no sources are.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guest-kernel/src/bin");
    println!("cargo::rerun-if-changed={}", programs.display());
    let mut lessons: Vec<PathBuf> = lessons(&programs).unwrap_or_else(|error| {
        panic!("cannot list {}: {error}", programs.display());
    });
    lessons.sort();
    let rows: String = lessons
        .iter()
        .map(|path| format!("    ({:?}, include_str!({path:?})),\n", path.file_stem().unwrap_or_default()))
        .collect();
    let list = format!(
        "/// Name and text of every lesson, in order.\npub(crate) const LESSONS: &[(&str, &str)] = &[\n{rows}];\n"
    );
    let place = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("lessons.rs");
    fs::write(place, list).expect("cargo's own folder can be written");
}

/// The programs whose name starts with a number.
fn lessons(programs: &Path) -> std::io::Result<Vec<PathBuf>> {
    let paths =
        fs::read_dir(programs)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let is_lesson = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(|c: char| c.is_ascii_digit()) && name.ends_with(".rs")
    };
    Ok(paths.into_iter().filter(is_lesson).collect())
}
