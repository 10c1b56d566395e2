//! Checks of the toolchain: the pinned compiler, and the target that guests are compiled for.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::check::{Check, Status};
use crate::{target, workspace};

/// Looks at the toolchain that builds guests.
///
/// # Errors
/// When the file that pins it cannot be read.
pub(super) fn checks() -> Result<Vec<Check>> {
    let toolchain = fs::read_to_string(workspace::root().join("rust-toolchain.toml"))
        .context("cannot read rust-toolchain.toml")?;
    let channel = channel(&toolchain).context("rust-toolchain.toml names no channel")?;
    let installed = ask_rustc(&["--print", "sysroot"]).is_ok_and(|sysroot| has_target(&sysroot));
    Ok(vec![rustc(ask_rustc(&["--version"]), channel), guest_target(installed, channel)])
}

/// The pinned version of Rust in the text of `rust-toolchain.toml`.
fn channel(toolchain: &str) -> Option<&str> {
    let line = toolchain.lines().find(|line| line.starts_with("channel"))?;
    line.split('"').nth(1)
}

/// What rustc prints when it is called in the workspace.
fn ask_rustc(arguments: &[&str]) -> Result<String> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let output =
        rustc.args(arguments).current_dir(workspace::root()).output().context("cannot start rustc")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn has_target(sysroot: &str) -> bool {
    Path::new(sysroot).join("lib/rustlib").join(target::GUEST).join("lib").is_dir()
}

/// Judges the compiler by what `rustc --version` gave.
fn rustc(version: Result<String>, channel: &str) -> Check {
    const NAME: &str = "rustc";
    match version {
        Ok(version) if version.split(' ').nth(1) == Some(channel) => Check::ok(NAME, version),
        Ok(version) => Check::new(
            NAME,
            Status::Warning,
            format!("{version}, but rust-toolchain.toml pins {channel}"),
            format!(
                "`rustup toolchain install {channel}`, and call cargo without `+<toolchain>` and RUSTUP_TOOLCHAIN"
            ),
        ),
        Err(error) => Check::new(
            NAME,
            Status::Problem,
            format!("rustc does not run: {error:#}"),
            format!("`rustup toolchain install {channel}`; rustup itself is at https://rustup.rs"),
        ),
    }
}

/// Judges whether guests can be compiled.
fn guest_target(installed: bool, channel: &str) -> Check {
    const NAME: &str = "target";
    let target = target::GUEST;
    if installed {
        return Check::ok(NAME, format!("{target} is installed"));
    }
    Check::new(
        NAME,
        Status::Problem,
        format!("{target}, for which guests are compiled, is not installed"),
        format!("`rustup target add --toolchain {channel} {target}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLCHAIN: &str = "# pinned\n[toolchain]\nchannel = \"1.95.0\"\ncomponents = [\"clippy\"]\n";

    #[test]
    fn the_channel_is_read_from_the_toolchain_file() {
        assert_eq!(channel(TOOLCHAIN), Some("1.95.0"));
        assert_eq!(channel("[toolchain]\n"), None);
    }

    #[test]
    fn the_pinned_rustc_is_ok_another_is_a_warning_and_none_a_problem() {
        let status = |version| rustc(version, "1.95.0").status;
        assert_eq!(status(Ok("rustc 1.95.0 (59807616e 2026-04-14)".into())), Status::Ok);
        assert_eq!(status(Ok("rustc 1.95.1 (0)".into())), Status::Warning);
        let missing = rustc(Err(anyhow::anyhow!("toolchain is not installed")), "1.95.0");
        assert_eq!(missing.status, Status::Problem);
        assert!(missing.render(false).contains("`rustup toolchain install 1.95.0`"));
    }

    #[test]
    fn a_missing_target_is_a_problem_with_the_command_that_adds_it() {
        let check = guest_target(false, "1.95.0");
        assert_eq!(check.status, Status::Problem);
        assert_eq!(
            check.remedy.as_deref(),
            Some("`rustup target add --toolchain 1.95.0 x86_64-unknown-none`")
        );
    }
}
