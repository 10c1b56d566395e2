//! The initramfs: all files of the machine in QEMU, as a cpio archive that Linux unpacks into RAM.
//!
//! It is not compressed: copying is what an emulated CPU does fastest.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use cpio::newc::{Builder, ModeFileType};

use super::modules::Module;

/// An initramfs in the making.
pub struct Initramfs {
    archive: BufWriter<File>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Initramfs {
    /// Begins an archive in this file.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(file: &Path) -> Result<Self> {
        let archive = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
        Ok(Self { archive: BufWriter::new(archive), folders: BTreeSet::new(), entries: 0 })
    }

    /// Adds the program or data in `file` under the absolute path `name`.
    ///
    /// # Errors
    /// When it cannot be read, or the archive cannot be written.
    pub fn add_file(&mut self, name: &str, file: &Path) -> Result<()> {
        let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        self.add(name, &bytes)
    }

    /// Adds modules; their names tell the order in which to load them.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub fn add_modules(&mut self, modules: &[Module]) -> Result<()> {
        for (position, module) in modules.iter().enumerate() {
            let name = format!("{}/{position:02}-{}.ko", second_kvm::MODULES, module.name);
            self.add(&name, &module.bytes)?;
        }
        Ok(())
    }

    /// Completes the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<()> {
        cpio::newc::trailer(self.archive)?.flush().context("cannot write the initramfs")
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let name = name.trim_start_matches('/');
        // Linux makes no folder by itself.
        for (end, _) in name.match_indices('/') {
            if self.folders.insert(name[..end].to_owned()) {
                self.entry(&name[..end], ModeFileType::Directory, &[])?;
            }
        }
        self.entry(name, ModeFileType::Regular, bytes)
    }

    fn entry(&mut self, name: &str, kind: ModeFileType, bytes: &[u8]) -> Result<()> {
        const EXECUTABLE: u32 = 0o755;
        self.entries += 1;
        let size = u32::try_from(bytes.len()).with_context(|| format!("{name} is larger than 4 GiB"))?;
        let entry = Builder::new(name).ino(self.entries).mode(EXECUTABLE).set_mode_file_type(kind);
        let mut entry = entry.write(&mut self.archive, size);
        entry.write_all(bytes).and_then(|()| entry.finish()).context("cannot write the initramfs")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_once_and_before_what_lies_in_them() {
        let folder = tempfile::tempdir().expect("writable");
        let file = folder.path().join("archive");
        let mut initramfs = Initramfs::create(&file).expect("writable");
        initramfs.add("/init", b"program").expect("writable");
        initramfs.add("/a/b/first", b"1").expect("writable");
        initramfs.add("/a/b/second", b"22").expect("writable");
        initramfs.finish().expect("writable");

        let mut names = Vec::new();
        let mut rest = File::open(&file).expect("written above");
        loop {
            let reader = cpio::newc::Reader::new(rest).expect("an archive");
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().file_size()));
            rest = reader.finish().expect("an archive");
        }
        let names: Vec<_> = names.iter().map(|(name, size)| (name.as_str(), *size)).collect();
        assert_eq!(names, [("init", 7), ("a", 0), ("a/b", 0), ("a/b/first", 1), ("a/b/second", 2)]);
    }
}
