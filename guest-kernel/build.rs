//! Builds the programs for ring 3, so that a kernel can have them in its image (`user::program!`).
//!
//! They are linked elsewhere than kernels, by a script of their own, and cargo links all that it builds for one target in
//! one way (`.cargo/config.toml`). So the compiler is called here, once for the library and once for each program. They
//! are optimised in every profile: what they compute should cost what it costs, and a kernel that carries them be small.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const PROGRAMS: &str = "../user-library/src/bin";
const LIBRARY: &str = "../user-library/src/lib.rs";
const SCRIPT: &str = "../user-library/link.ld";

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=../user-library/src");
    println!("cargo::rerun-if-changed={SCRIPT}");
    println!("cargo::rerun-if-changed=build.rs");
    if env::var("CARGO_CFG_TARGET_OS")? != "none" {
        // On the host there is no machine to run them.
        return Ok(());
    }
    let folder = PathBuf::from(env::var("OUT_DIR")?);
    compile(LIBRARY, "user_library", &["--crate-type=rlib"], &folder)?;
    let library = format!("user_library={}", folder.join("libuser_library.rlib").display());
    let script = format!("-Clink-arg=-T{SCRIPT}");
    for entry in fs::read_dir(PROGRAMS)? {
        let source = entry?.path();
        if source.extension() != Some(OsStr::new("rs")) {
            return Err(format!("{} is no program: one is a file `NAME.rs`", source.display()).into());
        }
        let name = source.file_stem().and_then(OsStr::to_str).ok_or("a program's name is no UTF-8")?;
        // Position-independent code reaches any address by RIP; the target's default, code for the last 2 GiB, does not.
        let options = [
            "--crate-type=bin",
            "--extern",
            &library,
            &script,
            "-Clink-arg=--no-pie",
            "-Clink-arg=-zmax-page-size=4096",
        ];
        compile(&source, name, &options, &folder)?;
    }
    Ok(())
}

fn compile(source: impl AsRef<Path>, name: &str, options: &[&str], folder: &Path) -> Result<()> {
    let source = source.as_ref();
    let mut rustc = Command::new(env::var_os("RUSTC").ok_or("cargo names the compiler")?);
    rustc.args(["--edition=2024", "--target=x86_64-unknown-none", "--crate-name", name]);
    rustc.args(["-Copt-level=s", "-Cpanic=abort", "-Cstrip=symbols", "-Ccodegen-units=1"]);
    rustc.args(options).arg("--out-dir").arg(folder).arg(source);
    let status = rustc.status()?;
    if !status.success() {
        return Err(
            format!("the program for ring 3 at {} does not compile: {status}", source.display()).into()
        );
    }
    Ok(())
}
