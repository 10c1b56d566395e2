//! Waiting for a file descriptor, but not for ever: the machine may be asked to stop meanwhile.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Whether `file` has one of `events` (`POLLIN`, `POLLOUT`) within `timeout_ms`. An end that is closed has: reading or
/// writing tells of it. False after the time, and after a signal.
pub(crate) fn is_ready(file: &File, events: libc::c_short, timeout_ms: libc::c_int) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: file.as_raw_fd(), events, revents: 0 };
    // SAFETY: One pollfd is passed, and it lives for the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, timeout_ms) };
    match ready {
        0 => Ok(false),
        1.. => Ok(true),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            error => Err(error),
        },
    }
}
