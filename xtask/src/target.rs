//! The targets beside the host's own: is one installed, and if not, install it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// What guests are compiled for.
pub const GUEST: &str = "x86_64-unknown-none";

/// What programs are compiled for that need no library: they run on any Linux, in an initramfs too.
pub const STATIC: &str = "x86_64-unknown-linux-musl";

/// Installs a target unless it is there.
///
/// # Errors
/// When it is not there and rustup cannot install it; the error holds the command to type.
pub fn ensure(target: &str) -> Result<()> {
    if library_directory(target)?.is_dir() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]).current_dir(workspace::root());
    eprintln!("xtask: the target {target} is not installed yet: {}", workspace::words(&rustup));
    let installed = workspace::check(&mut rustup);
    if installed.is_err() || !library_directory(target)?.is_dir() {
        let reason = installed.err().map_or_else(String::new, |error| format!(" ({error:#})"));
        bail!(
            "the target {target} is missing{reason}; type this in the workspace: rustup target add {target}"
        );
    }
    Ok(())
}

/// Where the toolchain has the target's libraries, whether or not they are installed.
fn library_directory(target: &str) -> Result<PathBuf> {
    Ok(sysroot()?.join("lib/rustlib").join(target).join("lib"))
}

/// Where the toolchain has the tools for this computer that are no commands, such as LLVM's.
pub(crate) fn host_tools() -> Result<PathBuf> {
    Ok(sysroot()?.join("lib/rustlib").join(host()?).join("bin"))
}

/// The target that programs for this computer are compiled for when none is named.
pub(crate) fn host() -> Result<String> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let output = rustc.arg("-vV").current_dir(workspace::root()).output().context("cannot start rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` does not tell the host")
}

/// The toolchain's folder. rustup tells its children; asking rustc would cost more than all the rest of a run.
pub(crate) fn sysroot() -> Result<PathBuf> {
    if let (Some(home), Some(name)) = (std::env::var_os("RUSTUP_HOME"), std::env::var_os("RUSTUP_TOOLCHAIN"))
    {
        return Ok(PathBuf::from(home).join("toolchains").join(name));
    }
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--print", "sysroot"]).current_dir(workspace::root());
    let output = rustc.output().context("cannot start rustc")?;
    if !output.status.success() {
        bail!("`rustc --print sysroot` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
