//! `cargo xtask run --kvm qemu`: one guest, as if the VMM ran here.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};
use std::thread;

use anyhow::{Result, bail};
use second_kvm::wire::CHUNK_SIZE;
use second_kvm::{Job, Order, Stream};

use super::kernel::Choice;
use super::link::Link;
use super::machine::{self, Machine, Terminal};
use crate::request::Request;
use crate::workspace::{self, Profile};

/// Options of the VMM whose value is a path that would have to exist in the machine.
const NEED_FILES_OF_THE_HOST: &[&str] =
    &["--core", "--dir", "--gdb", "--json-report", "--report", "--stats-json", "--timeline", "--trace-file"];

/// Runs the VMM's command `name` with what `request` says and `image` on `kvm_amd` in QEMU.
///
/// stdin, stdout, stderr, Ctrl-C and the exit code are those of the VMM inside.
///
/// # Errors
/// When something cannot be built, there is no QEMU, or the machine does not come up.
pub(crate) fn run(name: &str, request: &Request, image: &Path) -> Result<ExitCode> {
    let image_inside = image_inside(image);
    let mut words: Vec<OsString> = vec![name.into(), image_inside.clone().into()];
    words.extend_from_slice(&request.vmm_options);
    words.extend_from_slice(&request.guest_part);
    let file = (image_inside.display().to_string(), image.to_owned());
    vmm(&request.kvm.linux, request.profile, words, Some(file))
}

/// Runs `vmm` with these words on `kvm_amd` in QEMU, where `file` is at the path beside it.
///
/// # Errors
/// When something cannot be built, there is no QEMU, or the machine does not come up.
pub fn vmm(
    linux: &Choice,
    profile: Profile,
    words: Vec<OsString>,
    file: Option<(String, PathBuf)>,
) -> Result<ExitCode> {
    let programs = workspace::build_static(&["vmm", "second-kvm"], profile)?;
    let mut files =
        vec![("/init".to_owned(), programs.join("second-kvm")), ("/vmm".to_owned(), programs.join("vmm"))];
    files.extend(file);
    let machine = Machine::boot(&linux.find()?, &files)?;

    let command = std::iter::once("/vmm".into()).chain(words).collect();
    let job = Job { environment: super::environment(), command };
    machine.link().forward_signals(true);
    let code = machine.run(job, &mut OurTerminal, our_stdin(machine.link()), None)?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Refuses what cannot work, before anything is built.
///
/// # Errors
/// When there is no QEMU, or one of the VMM's options needs this computer's files.
pub fn check(options: &[OsString]) -> Result<()> {
    machine::need_qemu()?;
    for option in options {
        let name = option.to_str().map_or("", |option| option.split('=').next().unwrap_or(option));
        if NEED_FILES_OF_THE_HOST.contains(&name) {
            bail!("`{name}` needs files of this computer, which the machine in QEMU does not see");
        }
    }
    Ok(())
}

/// The image keeps its name, as messages show it.
fn image_inside(image: &Path) -> PathBuf {
    Path::new("/guests").join(image.file_name().unwrap_or(OsStr::new("guest")))
}

/// Our own stdout and stderr.
struct OurTerminal;

impl Terminal for OurTerminal {
    fn wrote(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            Stream::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            Stream::Stderr => io::stderr().write_all(bytes),
        }
    }
}

/// Reads our stdin on a thread, a piece each time it is called.
fn our_stdin(link: &Link) -> impl FnMut() + use<> {
    let (sender, requests): (Sender<()>, _) = mpsc::channel();
    let link = link.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_SIZE];
        for () in requests {
            let size = io::stdin().read(&mut buffer).unwrap_or(0);
            let order = if size == 0 { Order::InputEnd } else { Order::Input(buffer[..size].to_vec()) };
            if link.send(&order).is_err() || size == 0 {
                break;
            }
        }
    });
    // When stdin has ended, nobody listens any more, and nobody needs to.
    move || _ = sender.send(())
}
