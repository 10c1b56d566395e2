//! `cargo xtask new`: writes a guest program that is ready to run.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::guest::PROGRAMS;
use crate::workspace;

/// Writes `guest-kernel/src/bin/NAME.rs`.
///
/// # Errors
/// When the name cannot be a program's, or there is a program of that name: nothing is overwritten.
pub fn run(name: &str) -> Result<ExitCode> {
    check_name(name)?;
    let relative = format!("{PROGRAMS}/{name}.rs");
    let path = workspace::root().join(&relative);
    if workspace::root().join(PROGRAMS).join(name).is_dir() {
        bail!("there is a program `{name}`: {PROGRAMS}/{name}/main.rs");
    }
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    let mut file = match file {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("there is a program `{name}`: {relative}");
        }
        file => file.with_context(|| format!("cannot write {}", path.display()))?,
    };
    file.write_all(source(name).as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{relative} is ready: cargo xtask run {name}");
    Ok(ExitCode::SUCCESS)
}

/// Cargo takes the file's name as the program's, and as a part of file names.
fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) || name.starts_with('-') {
        bail!("`{name}` cannot be a program's name: use up to 64 letters, digits, `_` and `-`");
    }
    if RESERVED.contains(&name) {
        bail!("cargo keeps the name `{name}` for itself; choose another");
    }
    Ok(())
}

/// Folders that cargo makes beside programs; it refuses binaries of these names.
const RESERVED: [&str; 4] = ["build", "deps", "examples", "incremental"];

fn source(name: &str) -> String {
    format!(
        "//! Says hello: what `{name}` does, in one line. `cargo xtask list` shows it.

#![cfg_attr(target_os = \"none\", no_std, no_main)]

use guest_kernel::{{entry, println}};

entry!(main);

fn main() {{
    println!(\"hello from {name}\");
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_programs_are_refused() {
        for name in ["", "a b", "../x", "-x", "deps", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        for name in ["my_program", "02-ports", "x"] {
            check_name(name).expect(name);
        }
    }
}
