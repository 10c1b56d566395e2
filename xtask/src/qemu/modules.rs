//! Which kernel modules the machine in QEMU loads, and in which order.
//!
//! A module says in its section `.modinfo` which others it needs. So this works on a folder that no `depmod` has seen,
//! as a package that was only unpacked is.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

use super::kernel::Kernel;

/// What xtask talks through, then what all is about.
const WANTED: [&str; 3] = ["virtio_pci", "virtio_console", "kvm_amd"];

/// The modules of a kernel, by name.
#[derive(Debug)]
pub struct Modules {
    files: HashMap<String, PathBuf>,
    /// The names of those that are part of the kernel itself.
    builtin: Vec<String>,
}

/// A module, ready to be loaded.
#[derive(Debug)]
pub struct Module {
    /// As `lsmod` would show it.
    pub name: String,
    /// The ELF file.
    pub bytes: Vec<u8>,
}

impl Modules {
    /// Looks at all files in the folder.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn of(kernel: &Kernel) -> Result<Self> {
        let mut files = HashMap::new();
        collect(&kernel.modules, &mut files)?;
        let list = fs::read_to_string(kernel.modules.join("modules.builtin")).unwrap_or_default();
        let builtin = list.lines().filter_map(|line| name_of(Path::new(line))).collect();
        Ok(Self { files, builtin })
    }

    /// Whether the kernel has this module, as a file or built in.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.is_builtin(name)
    }

    fn is_builtin(&self, name: &str) -> bool {
        self.builtin.iter().any(|builtin| builtin == name)
    }

    /// The modules that are wanted, each behind those that it needs.
    ///
    /// # Errors
    /// When one is missing or cannot be read.
    pub fn wanted(&self) -> Result<Vec<Module>> {
        let mut modules = Vec::new();
        for name in WANTED {
            self.add(name, &mut modules)?;
        }
        Ok(modules)
    }

    fn add(&self, name: &str, modules: &mut Vec<Module>) -> Result<()> {
        if modules.iter().any(|module| module.name == name) || self.is_builtin(name) {
            return Ok(());
        }
        let Some(file) = self.files.get(name) else {
            bail!("the kernel has no module {name}: choose another one with --kernel and --modules");
        };
        let bytes = read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let needs = needs(&bytes).with_context(|| format!("{} is no kernel module", file.display()))?;
        for need in needs {
            self.add(&need, modules)?;
        }
        modules.push(Module { name: name.to_owned(), bytes });
        Ok(())
    }
}

fn collect(folder: &Path, files: &mut HashMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        // Not `is_dir`: `build` and `source` are links out of the folder.
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else if let Some(name) = name_of(&entry.path()) {
            files.insert(name, entry.path());
        }
    }
    Ok(())
}

/// The name of the module in a file such as `kvm-amd.ko` or `kvm-amd.ko.xz`. For Linux `-` and `_` are the same.
fn name_of(file: &Path) -> Option<String> {
    let (name, suffix) = file.file_name()?.to_str()?.split_once(".ko")?;
    matches!(suffix, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

/// The module, unpacked.
fn read(file: &Path) -> Result<Vec<u8>> {
    let packed = fs::read(file)?;
    let mut bytes = Vec::new();
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => return Ok(packed),
        Some("xz") => lzma_rs::xz_decompress(&mut packed.as_slice(), &mut bytes)?,
        Some("zst") => {
            let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed.as_slice())?;
            std::io::Read::read_to_end(&mut decoder, &mut bytes)?;
        }
        _ => bail!("it is packed in a way that xtask does not know; unpack it beside itself"),
    }
    Ok(bytes)
}

/// The names behind `depends=` in `.modinfo`: strings that end with zero bytes.
fn needs(module: &[u8]) -> Result<Vec<String>> {
    let elf = object::File::parse(module)?;
    let section = elf.section_by_name(".modinfo").context("it has no section .modinfo")?;
    let strings = section.data()?.split(|&byte| byte == 0);
    let names = strings.filter_map(|string| string.strip_prefix(b"depends=")).next().unwrap_or_default();
    let names = String::from_utf8_lossy(names);
    Ok(names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_has_one_name_however_its_file_is_called() {
        for file in ["kvm-amd.ko", "/a/kvm_amd.ko.xz", "kernel/arch/x86/kvm/kvm-amd.ko.zst"] {
            assert_eq!(name_of(Path::new(file)).as_deref(), Some("kvm_amd"));
        }
        for file in ["modules.dep", "kvm.ko.bak", "vmlinux", ""] {
            assert_eq!(name_of(Path::new(file)), None);
        }
    }

    #[test]
    fn packed_modules_are_unpacked() {
        let folder = tempfile::tempdir().expect("writable");
        let mut xz = Vec::new();
        lzma_rs::xz_compress(&mut b"module".as_slice(), &mut xz).expect("memory takes all");
        let zst = ruzstd::encoding::compress_to_vec(
            b"module".as_slice(),
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        for (name, bytes) in [("m.ko", b"module".to_vec()), ("m.ko.xz", xz), ("m.ko.zst", zst)] {
            let file = folder.path().join(name);
            fs::write(&file, bytes).expect("writable");
            assert_eq!(read(&file).expect("readable"), b"module", "{name}");
        }
        let file = folder.path().join("m.ko.gz");
        fs::write(&file, "").expect("writable");
        assert!(read(&file).is_err());
    }

    #[test]
    fn a_missing_module_is_named_and_a_builtin_one_is_not_missed() {
        let modules = Modules { files: HashMap::new(), builtin: vec!["virtio_pci".into()] };
        let error = modules.wanted().expect_err("no files").to_string();
        assert!(error.contains("no module virtio_console"), "{error}");
    }
}
