//! `cargo xtask run`: builds a guest and the VMM, and boots the one in the other.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::request::{Image, Request};
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
fn need_kvm() -> Result<()> {
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
