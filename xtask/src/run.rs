//! `cargo xtask run`: builds a guest and the VMM, and boots the one in the other.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::workspace::{self, Profile};
use crate::{guest, qemu};

const HELP: &str = "\
Builds a guest program and the VMM, and boots the one in the other

Usage: cargo xtask run [PROGRAM] [--release|--debug] [--kvm host|qemu] [VMM OPTIONS] [-- GUEST ARGUMENTS]

PROGRAM is a name that `cargo xtask list` shows, or the path of an ELF file; without it, 01_hello runs.

--kvm qemu does without /dev/kvm: QEMU emulates a CPU on which Linux runs with its kvm_amd, and the VMM runs there. It
needs qemu-system-x86, and a Linux kernel: Debian's, which apt fetches, or --kernel FILE --modules DIR.

Examples:
  cargo xtask run
  cargo xtask run 01_hello --release --memory 64G
  cargo xtask run 01_hello --timeout 2s -- first second
  cargo xtask run ./my-kernel.elf
  cargo xtask run --kvm qemu 01_hello

The VMM options are those of `vmm run`:
";

/// Runs the command with the words behind `cargo xtask run`.
///
/// # Errors
/// When something cannot be built or the VMM cannot be started. What the guest does is the exit code.
pub fn run(words: &[OsString]) -> Result<ExitCode> {
    let request = Request::from_words(words)?;
    if request.help {
        return help();
    }
    if request.kvm.kvm == qemu::Which::Both {
        bail!("`run` runs one guest on one KVM: --kvm host or --kvm qemu");
    }
    if request.kvm.kvm.qemu() {
        qemu::run::check(&request.vmm_options)?;
    } else {
        need_kvm()?;
    }
    let image = match &request.image {
        Image::File(path) => path.clone(),
        Image::Program(name) => guest::build(name, request.profile)?,
    };
    if request.kvm.kvm.qemu() {
        return qemu::run::run(
            &request.kvm.linux,
            request.profile,
            &request.vmm_options,
            &image,
            &request.guest_part,
        );
    }
    let vmm = workspace::build_vmm(request.profile)?;
    // The VMM replaces this process: signals and the exit code need nobody in between.
    let error =
        Command::new(&vmm).arg("run").args(&request.vmm_options).arg(image).args(&request.guest_part).exec();
    Err(error).with_context(|| format!("cannot start {}", vmm.display()))
}

/// Refuses to go on where there is no /dev/kvm, and says what to do.
pub(crate) fn need_kvm() -> Result<()> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm");
    kvm.map(drop).context(
        "guests need /dev/kvm, which cannot be opened here. `cargo xtask doctor` says how to get it. Without it, put \
         `--kvm qemu` behind `cargo xtask run`: then guests run, some seconds slower, in a machine that QEMU emulates \
         (package qemu-system-x86)",
    )
}

fn help() -> Result<ExitCode> {
    print!("{HELP}");
    let vmm = workspace::build_vmm(Profile::Debug)?;
    workspace::check(Command::new(vmm).args(["run", "--help"]))?;
    Ok(ExitCode::SUCCESS)
}

/// What the words mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) image: Image,
    pub(crate) profile: Profile,
    pub(crate) help: bool,
    pub(crate) kvm: qemu::Options,
    pub(crate) vmm_options: Vec<OsString>,
    /// `--` and all behind it.
    pub(crate) guest_part: Vec<OsString>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Image {
    Program(String),
    File(PathBuf),
}

impl Request {
    /// Our own options are taken out; all others are the VMM's and stay as they are.
    pub(crate) fn from_words(words: &[OsString]) -> Result<Self> {
        let guest_start = words.iter().position(|word| word == "--").unwrap_or(words.len());
        let (own, guest_part) = words.split_at(guest_start);
        let (kvm, own) = qemu::Options::take_from(own)?;
        let mut request = Self {
            image: Image::Program(guest::DEFAULT_PROGRAM.to_owned()),
            profile: Profile::Debug,
            help: false,
            kvm,
            vmm_options: Vec::new(),
            guest_part: guest_part.to_vec(),
        };
        let programs = guest::programs()?;
        let mut named = false;
        for (position, word) in own.iter().enumerate() {
            // Behind an option a word may be that option's value, unless a program has just this name.
            let is_program = programs.iter().any(|program| OsStr::new(&program.name) == word);
            let is_first = position == 0 && !word.to_string_lossy().starts_with('-');
            match word.to_str() {
                Some("--release") => request.profile = Profile::Release,
                Some("--debug") => request.profile = Profile::Debug,
                Some("--help" | "-h") => request.help = true,
                _ if !named && (is_first || is_program) => {
                    request.image = image(word);
                    named = true;
                }
                _ => request.vmm_options.push(word.clone()),
            }
        }
        Ok(request)
    }
}

/// A word with a slash, or that names a file, is a path.
fn image(word: &OsStr) -> Image {
    let text = word.to_string_lossy();
    if text.contains('/') || Path::new(word).is_file() {
        return Image::File(PathBuf::from(word));
    }
    Image::Program(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Request {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Request::from_words(&words).expect("the workspace has programs")
    }

    #[test]
    fn without_words_hello_runs() {
        assert_eq!(request(&[]).image, Image::Program("01_hello".into()));
    }

    #[test]
    fn options_may_stand_before_and_behind_the_program() {
        for words in
            [["01_hello", "--memory", "64G", "--release"], ["--release", "--memory", "64G", "01_hello"]]
        {
            let request = request(&words);
            assert_eq!(request.image, Image::Program("01_hello".into()));
            assert_eq!(request.profile, Profile::Release);
            assert_eq!(request.vmm_options, ["--memory", "64G"]);
        }
    }

    #[test]
    fn the_value_of_an_option_is_no_program() {
        let request = request(&["--memory", "64G"]);
        assert_eq!(request.image, Image::Program("01_hello".into()));
        assert_eq!(request.vmm_options, ["--memory", "64G"]);
    }

    #[test]
    fn what_stands_behind_two_dashes_is_the_guests() {
        let request = request(&["01_hello", "--", "--release", "--help"]);
        assert_eq!(request.guest_part, ["--", "--release", "--help"]);
        assert_eq!((request.profile, request.help), (Profile::Debug, false));
    }

    #[test]
    fn a_path_is_booted_as_it_is() {
        assert_eq!(request(&["./kernel.elf"]).image, Image::File("./kernel.elf".into()));
    }

    #[test]
    fn an_unknown_program_is_named_with_those_there_are() {
        let error = guest::build("nonesuch", Profile::Debug).expect_err("no such program").to_string();
        assert!(error.contains("`nonesuch`") && error.contains("01_hello"), "{error}");
    }
}
