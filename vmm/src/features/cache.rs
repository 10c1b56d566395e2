//! What was found, kept until the host boots again or loads another KVM.
//!
//! Trying everything takes a fraction of a second, which a suite of tests does not want to pay for each test.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Feature, Features};
use crate::doctor::Flavour;

/// The findings, and for which host and program they hold.
#[derive(Deserialize, Serialize)]
struct Kept {
    /// Which boot of which KVM, and which features were asked for.
    key: String,
    features: Features,
}

/// What was found before, if it still holds.
pub(super) fn read(folder: &Path) -> Option<Features> {
    let kept: Kept = serde_json::from_slice(&fs::read(file(folder)).ok()?).ok()?;
    let is_whole = kept.features.findings.len() == Feature::ALL.len();
    (kept.key == key()? && is_whole).then_some(kept.features)
}

/// Keeps what was found. That it cannot be kept is no error: it is found again.
pub(super) fn write(folder: &Path, features: &Features) {
    let Some(key) = key() else { return };
    let file = file(folder);
    let kept = Kept { key, features: features.clone() };
    let Ok(text) = serde_json::to_vec(&kept) else { return };
    // Renamed into place, so that nobody reads half of it.
    let new = file.with_extension(format!("{}", std::process::id()));
    if fs::write(&new, text).and_then(|()| fs::rename(&new, &file)).is_err() {
        let _ = fs::remove_file(&new);
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("duet-features.json")
}

fn key() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let kvm = Flavour::of_this_host().map_or("unknown", Flavour::module);
    let names: Vec<_> = Feature::ALL.iter().map(|feature| feature.name()).collect();
    Some(format!("{} {kvm} {} {}", boot.trim(), env!("CARGO_PKG_VERSION"), names.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features() -> Features {
        let finding = |feature: &Feature| super::super::Finding {
            feature: feature.name().to_owned(),
            present: true,
            seen: None,
        };
        Features { kvm: None, findings: Feature::ALL.iter().map(finding).collect() }
    }

    #[test]
    fn what_was_kept_is_read_and_what_does_not_hold_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(read(folder.path()), None, "nothing is kept yet");
        write(folder.path(), &features());
        assert_eq!(read(folder.path()), Some(features()));

        let other_boot = fs::read_to_string(file(folder.path())).expect("kept").replacen('-', "0", 1);
        fs::write(file(folder.path()), other_boot).expect("writable");
        assert_eq!(read(folder.path()), None, "it is of another boot");

        fs::write(file(folder.path()), b"{\"key\":").expect("writable");
        assert_eq!(read(folder.path()), None, "it is damaged");
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_no_error() {
        write(Path::new("/proc/nowhere"), &features());
    }
}
