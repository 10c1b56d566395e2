//! Debian's kernel package: fetched by apt, unpacked below `target/`, never installed.
//!
//! Neither step needs root. The package for clouds comes first: it has all that is needed here in 27 MB, the general
//! one in 70.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::workspace;

/// Packages that depend on the newest kernel package, the best one first.
const NEWEST: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-amd64"];

/// The way out when there is no such package.
const REMEDY: &str = "name a kernel yourself: `--kernel FILE --modules DIR`, or DUET_KERNEL and DUET_MODULES";

/// Where packages are unpacked, each in a folder of its name.
fn cache() -> PathBuf {
    super::directory().join("linux")
}

/// The kernel of a package that was unpacked before; the newest by name if there are several.
pub(super) fn unpacked() -> Option<Kernel> {
    let folders = fs::read_dir(cache()).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut kernels: Vec<_> = folders.filter_map(|folder| kernel_in(&folder)).collect();
    kernels.sort_by(|a, b| a.image.cmp(&b.image));
    kernels.pop()
}

fn kernel_in(folder: &Path) -> Option<Kernel> {
    let entries = fs::read_dir(folder.join("boot")).ok()?;
    let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let release = names.find_map(|name| Some(name.strip_prefix("vmlinuz-")?.to_owned()))?;
    Kernel::below(folder, &release)
}

/// Fetches and unpacks the newest package.
pub(super) fn fetch() -> Result<Kernel> {
    let package = newest()?;
    eprintln!("xtask: fetching the kernel for QEMU: apt-get download {package}");
    fs::create_dir_all(super::directory())?;
    // Complete or not there at all: a folder gets its name when it is done.
    let workshop = tempfile::Builder::new().prefix("fetch-").tempdir_in(super::directory())?;
    quietly(Command::new("apt-get").arg("download").arg(&package).current_dir(workshop.path()))?;
    let archive = only_file(workshop.path())?;
    let folder = workshop.path().join("unpacked");
    quietly(Command::new("dpkg-deb").arg("--extract").args([&archive, &folder]))?;

    let place = cache().join(&package);
    fs::create_dir_all(cache())?;
    if let Err(error) = fs::rename(&folder, &place) {
        // Somebody else may have been quicker.
        kernel_in(&place).with_context(|| format!("cannot create {}: {error}", place.display()))?;
    }
    kernel_in(&place).with_context(|| format!("the package {package} has no kernel with modules; {REMEDY}"))
}

/// The package that one of [`NEWEST`] depends on.
fn newest() -> Result<String> {
    for name in NEWEST {
        let output = Command::new("apt-cache").args(["depends", "--important", name]).output();
        let output = output.with_context(|| format!("this is no Debian (no apt-cache); {REMEDY}"))?;
        if let Some(package) = dependency(&String::from_utf8_lossy(&output.stdout)) {
            return Ok(package);
        }
    }
    bail!("apt knows no package {}: run `apt-get update` as root, or {REMEDY}", NEWEST.join(" or "));
}

/// The kernel package in the answer of `apt-cache depends`.
fn dependency(answer: &str) -> Option<String> {
    let names = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.map(str::trim).find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let entry = fs::read_dir(folder)?.next().context("apt-get has downloaded nothing")?;
    Ok(entry?.path())
}

/// Runs a command that speaks only when it fails.
fn quietly(command: &mut Command) -> Result<()> {
    let words = workspace::words(command);
    let output = command.output().with_context(|| format!("cannot start `{words}`; {REMEDY}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        // apt warns of what does not matter here, such as who it runs as.
        let errors: Vec<_> = complaint.lines().filter(|line| !line.starts_with("W: ")).collect();
        bail!(
            "`{words}` failed: {}\nIts lists may be old: run `apt-get update` as root; or {REMEDY}",
            errors.join("\n")
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_read_from_what_apt_says() {
        let answer = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(dependency(answer).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(dependency("linux-image-amd64\n"), None);
        assert_eq!(dependency(""), None);
    }
}
