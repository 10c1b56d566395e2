//! `Request`: the words behind a command that boots a guest.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::guest::DebugInfo;
use crate::workspace::Profile;
use crate::{guest, qemu};

/// What the words mean.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) image: Image,
    pub(crate) profile: Profile,
    pub(crate) debug_info: DebugInfo,
    pub(crate) help: bool,
    pub(crate) kvm: qemu::Options,
    pub(crate) vmm_options: Vec<OsString>,
    /// `--` and all behind it.
    pub(crate) guest_part: Vec<OsString>,
}

/// What is to be booted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Image {
    Program(String),
    File(PathBuf),
}

impl Request {
    /// Our own options are taken out; all others are the VMM's and stay as they are. Where the command takes addresses,
    /// a word is an image only when it is the name of a program or a path.
    pub(crate) fn from_words(words: &[OsString], takes_addresses: bool) -> Result<Self> {
        let guest_start = words.iter().position(|word| word == "--").unwrap_or(words.len());
        let (own, guest_part) = words.split_at(guest_start);
        let (kvm, own) = qemu::Options::take_from(own)?;
        let mut request = Self {
            image: Image::Program(guest::DEFAULT_PROGRAM.to_owned()),
            profile: Profile::Debug,
            debug_info: DebugInfo::Full,
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
            let could_be = !word.to_string_lossy().starts_with('-') && (!takes_addresses || is_path(word));
            let is_first = position == 0 && could_be;
            match word.to_str() {
                Some("--release") => request.profile = Profile::Release,
                Some("--debug") => request.profile = Profile::Debug,
                Some("--no-debug-info") => request.debug_info = DebugInfo::None,
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

fn image(word: &OsStr) -> Image {
    if is_path(word) {
        Image::File(PathBuf::from(word))
    } else {
        Image::Program(word.to_string_lossy().into_owned())
    }
}

/// A word with a slash, or that names a file, is a path.
fn is_path(word: &OsStr) -> bool {
    word.to_string_lossy().contains('/') || Path::new(word).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Request {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        Request::from_words(&words, false).expect("the workspace has programs")
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
    fn no_debug_info_is_asked_of_the_builder_and_not_of_the_vmm() {
        let request = request(&["probe", "--no-debug-info", "--", "panic"]);
        assert_eq!((request.debug_info, request.vmm_options), (DebugInfo::None, Vec::new()));
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
    fn where_addresses_may_stand_only_a_program_or_a_path_is_an_image() {
        for (words, image, others) in [
            (&["main", "0x1000"][..], Image::Program("01_hello".into()), &["main", "0x1000"][..]),
            (&["probe", "main"], Image::Program("probe".into()), &["main"]),
            (&["./kernel.elf", "4096"], Image::File("./kernel.elf".into()), &["4096"]),
            (&["--at-stop", "main", "probe"], Image::Program("probe".into()), &["--at-stop", "main"]),
        ] {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let request = Request::from_words(&words, true).expect("the workspace has programs");
            assert_eq!(
                (request.image, request.vmm_options),
                (image, others.iter().map(OsString::from).collect())
            );
        }
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
