//! Commands that build a guest and the VMM and hand the one to the other: `run` and its like.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::guest::DebugInfo;
use crate::request::{Image, Request};
use crate::workspace::{self, Profile};
use crate::{guest, qemu};

/// A command of the VMM that boots a guest, as xtask offers it: with the name of a program in place of an image.
#[derive(Debug)]
pub(crate) struct BootCommand {
    /// Its name, here and there.
    pub(crate) name: &'static str,
    /// What `--help` shows; the VMM's own help follows.
    pub(crate) help: &'static str,
    /// Whether addresses and names may stand where a program could.
    pub(crate) takes_addresses: bool,
}

/// Builds what `words` ask for and does `command` with it.
///
/// # Errors
/// When something cannot be built or the VMM cannot be started. What the guest does is the exit code.
pub(crate) fn boot(command: &BootCommand, words: &[OsString]) -> Result<ExitCode> {
    let mut request = Request::from_words(words, command.takes_addresses)?;
    if request.help {
        return help(command);
    }
    if request.kvm.kvm == qemu::Which::Both {
        bail!("`{}` runs one guest on one KVM: --kvm host or --kvm qemu", command.name);
    }
    if request.kvm.kvm.qemu() {
        qemu::run::check(&request.vmm_options)?;
    } else {
        need_kvm()?;
    }
    let image = match &request.image {
        Image::File(path) => path.clone(),
        Image::Program(name) => guest::build_with(name, request.profile, request.debug_info)?,
    };
    if matches!(request.image, Image::File(_)) && request.debug_info == DebugInfo::None {
        // What is built already has what it has; only `vmm run` can do as if it had not.
        request.vmm_options.push("--no-debug-info".into());
    }
    if request.kvm.kvm.qemu() {
        return qemu::run::run(command.name, &request, &image);
    }
    let vmm = workspace::build_vmm(request.profile)?;
    // The VMM replaces this process: signals and the exit code need nobody in between.
    let error = Command::new(&vmm)
        .arg(command.name)
        .arg(image)
        .args(&request.vmm_options)
        .args(&request.guest_part)
        .exec();
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

fn help(command: &BootCommand) -> Result<ExitCode> {
    print!("{}", command.help);
    let vmm = workspace::build_vmm(Profile::Debug)?;
    workspace::check(Command::new(vmm).args([command.name, "--help"]))?;
    Ok(ExitCode::SUCCESS)
}
