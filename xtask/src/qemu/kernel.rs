//! The Linux that boots in QEMU: a kernel and the folder of its modules, and where they come from.
//!
//! In this order: what was typed, what the environment says, Debian's package as unpacked below `target/` before, the
//! kernel that this computer runs (if its file is readable; some distributions keep it from users), Debian's package
//! fetched now (`package.rs`).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::package;

/// Which Linux to boot, as far as somebody cares.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// With --kvm qemu: the Linux kernel to boot there, instead of Debian's. Or set DUET_KERNEL.
    #[arg(long, value_name = "FILE", requires = "modules")]
    pub kernel: Option<PathBuf>,
    /// With --kvm qemu: that kernel's modules, such as /lib/modules/6.1.0-56-amd64. Or set DUET_MODULES.
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,
}

/// A Linux kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The file that boots: `vmlinuz` or `bzImage`.
    pub image: PathBuf,
    /// The folder with its modules, at any depth.
    pub modules: PathBuf,
}

impl Choice {
    /// The kernel to boot. Fetches one if need be.
    ///
    /// # Errors
    /// When the one that was chosen is not there, or there is none and none can be fetched.
    pub fn find(&self) -> Result<Kernel> {
        if let Some(kernel) = self.named() {
            return kernel.checked();
        }
        if let Some(kernel) = package::unpacked().or_else(running) {
            return Ok(kernel);
        }
        package::fetch()
    }

    fn named(&self) -> Option<Kernel> {
        let typed_or_set = |typed: &Option<PathBuf>, variable| {
            typed.clone().or_else(|| std::env::var_os(variable).map(PathBuf::from))
        };
        let image = typed_or_set(&self.kernel, "DUET_KERNEL")?;
        let modules = typed_or_set(&self.modules, "DUET_MODULES")?;
        Some(Kernel { image, modules })
    }
}

impl Kernel {
    /// The kernel, if its files can be read.
    fn checked(self) -> Result<Self> {
        let image = self.image.display();
        File::open(&self.image).with_context(|| format!("cannot read the kernel {image}"))?;
        if !self.modules.is_dir() {
            bail!("{} is not a folder with the modules of {image}", self.modules.display());
        }
        Ok(self)
    }

    /// What `uname -r` will say: distributions name files and folders by it.
    #[must_use]
    pub fn release(&self) -> String {
        let name = self.image.file_name().unwrap_or_default().to_string_lossy();
        name.strip_prefix("vmlinuz-").unwrap_or(&name).to_owned()
    }

    /// The kernel below `root`, a directory laid out like `/`.
    pub(super) fn below(root: &Path, release: &str) -> Option<Self> {
        let modules = ["lib/modules", "usr/lib/modules"]
            .map(|folder| root.join(folder).join(release))
            .into_iter()
            .find(|folder| folder.is_dir())?;
        let image = root.join("boot").join(format!("vmlinuz-{release}"));
        Self { image, modules }.checked().ok()
    }
}

/// The kernel that this computer runs, if it can be read and can do what is asked of it.
fn running() -> Option<Kernel> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let kernel = Kernel::below(Path::new("/"), release.trim())?;
    super::modules::Modules::of(&kernel).ok()?.has("kvm_amd").then_some(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_was_typed_must_be_there_with_its_modules() {
        let folder = tempfile::tempdir().expect("writable");
        let image = folder.path().join("vmlinuz-6.1.0-test");
        let choice = Choice { kernel: Some(image.clone()), modules: Some(folder.path().join("modules")) };

        let error = format!("{:#}", choice.find().expect_err("no kernel"));
        assert!(error.contains("cannot read the kernel") && error.contains("6.1.0-test"), "{error}");

        fs::write(&image, "").expect("writable");
        let error = format!("{:#}", choice.find().expect_err("no modules"));
        assert!(error.contains("is not a folder with the modules"), "{error}");

        fs::create_dir(folder.path().join("modules")).expect("writable");
        assert_eq!(choice.find().expect("all there").release(), "6.1.0-test");
    }
}
