//! What an init does before and after all else: file systems, modules, the switch.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::process::ExitCode;

use second_kvm::MODULES;

/// Type and place of each file system. Order matters: `/dev/shm` lies in `/dev`.
const MOUNTS: [(&CStr, &CStr); 6] = [
    (c"proc", c"/proc"),
    (c"sysfs", c"/sys"),
    (c"devtmpfs", c"/dev"),
    (c"devpts", c"/dev/pts"),
    (c"tmpfs", c"/dev/shm"),
    (c"tmpfs", c"/tmp"),
];

/// Mounts what programs expect to find.
pub(crate) fn mount_all() -> io::Result<()> {
    for (kind, place) in MOUNTS {
        let name = place.to_str().expect("the places above are ASCII");
        fs::create_dir_all(name).and_then(|()| mount(kind, place)).map_err(|error| said(name, &error))?;
    }
    Ok(())
}

fn mount(kind: &CStr, place: &CStr) -> io::Result<()> {
    // SAFETY: The three strings end with a zero byte and live for the call; these file systems take no data.
    let result = unsafe { libc::mount(kind.as_ptr(), place.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Loads the modules in the order of their names, which is the order of what they need from each other.
pub(crate) fn load_modules() -> io::Result<()> {
    let mut modules =
        fs::read_dir(MODULES)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    modules.sort();
    for module in modules {
        load_module(&File::open(&module)?).map_err(|error| said(&module.display().to_string(), &error))?;
    }
    Ok(())
}

fn load_module(file: &File) -> io::Result<()> {
    // SAFETY: finit_module(2) reads the file and the parameters, an empty string that lives for the call. What the
    // module then does is the kernel's business.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Ends the machine: QEMU is told not to reboot, so a reboot ends it, and that needs no ACPI.
pub(crate) fn switch_off() -> ExitCode {
    // SAFETY: reboot(2) with this command does not return if it succeeds. There is no disk to be synced.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
    // It has failed. When the first process quits, Linux panics, and `panic=-1` makes that a reboot.
    ExitCode::FAILURE
}

fn said(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
