//! The second KVM: the same programs on Linux's `kvm_amd`, in a machine that QEMU emulates.
//!
//! Not every computer has /dev/kvm, and not every /dev/kvm is the one that users have. QEMU emulates an AMD CPU with
//! SVM in software; a distribution's Linux boots there ([`kernel`]) and loads its own `kvm-amd` ([`modules`]). All that
//! the machine needs is packed into one archive ([`initramfs`]): our own first process (the crate `second-kvm`), and
//! the programs to run, linked statically as there are no libraries. Then [`machine`] starts QEMU and talks to that
//! process: run this, here is stdin; stdout, stderr and the exit code come back as they are. [`mod@run`] and [`mod@test`]
//! are the commands. Nothing here needs root, and nothing is installed.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::workspace;

pub mod initramfs;
pub mod kernel;
mod link;
pub mod machine;
pub mod modules;
mod package;
pub mod run;
pub mod test;

/// Which KVM runs the guests, as people type it.
#[derive(clap::Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which KVM runs the guests.
    #[arg(long, value_enum, default_value_t)]
    pub kvm: Which,
    /// The Linux in QEMU.
    #[command(flatten)]
    pub linux: kernel::Choice,
}

/// [`Options`] without a command around them.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true, override_usage = USAGE)]
struct Words {
    #[command(flatten)]
    options: Options,
}

const USAGE: &str = "cargo xtask run [--kvm host|qemu] [--kernel FILE --modules DIR] ...";

/// A word for a KVM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// This computer's /dev/kvm.
    #[default]
    Host,
    /// kvm_amd, on a CPU that QEMU emulates. Slower, and needs no /dev/kvm.
    Qemu,
    /// One after the other.
    Both,
}

impl Which {
    /// Whether this computer's /dev/kvm is meant.
    #[must_use]
    pub fn host(self) -> bool {
        self != Self::Qemu
    }

    /// Whether the one in QEMU is meant.
    #[must_use]
    pub fn qemu(self) -> bool {
        self != Self::Host
    }
}

impl Options {
    /// Takes these options, and their values, out of words of which others are the VMM's.
    ///
    /// # Errors
    /// When a value is missing or wrong.
    pub fn take_from(words: &[OsString]) -> Result<(Self, Vec<OsString>)> {
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let name = word.to_str().map_or("", |word| word.split('=').next().unwrap_or(word));
            if !matches!(name, "--kvm" | "--kernel" | "--modules") {
                others.push(word.clone());
                continue;
            }
            ours.push(word.clone());
            if OsStr::new(name) == word {
                ours.extend(words.next().cloned());
            }
        }
        Ok((Words::try_parse_from(ours)?.options, others))
    }
}

/// Where all of this keeps its files.
fn directory() -> PathBuf {
    workspace::target_directory().join("second-kvm")
}

/// The variables of our environment that mean something to the programs inside.
pub(crate) fn environment() -> Vec<OsString> {
    const PREFIXES: [&str; 3] = ["RUST_", "PROPTEST_", "NO_COLOR"];
    let variables = std::env::vars_os();
    let meant = variables.filter(|(name, _)| {
        name.to_str().is_some_and(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    });
    meant.map(|(name, value)| variable(&name, &value)).collect()
}

fn variable(name: &OsStr, value: &OsStr) -> OsString {
    [name, OsStr::new("="), value].into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(words: &[&str]) -> Result<(Options, Vec<OsString>)> {
        Options::take_from(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn our_options_are_taken_and_the_others_stay_in_order() {
        let words = ["--kvm", "qemu", "probe", "--memory", "4M", "--kernel=k", "--modules", "m", "--ksm"];
        let (options, others) = take(&words).expect("right words");
        assert_eq!(options.kvm, Which::Qemu);
        assert_eq!((options.linux.kernel, options.linux.modules), (Some("k".into()), Some("m".into())));
        assert_eq!(others, ["probe", "--memory", "4M", "--ksm"]);
    }

    #[test]
    fn without_words_it_is_the_hosts_kvm() {
        let (options, others) = take(&["probe"]).expect("right words");
        assert_eq!((options, others), (Options::default(), vec!["probe".into()]));
    }

    #[test]
    fn wrong_values_and_halves_are_refused() {
        for words in [&["--kvm", "xen"][..], &["--kvm"], &["--kernel", "k"], &["--modules=m"]] {
            assert!(take(words).is_err(), "{words:?}");
        }
    }
}
