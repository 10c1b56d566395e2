//! The process's own standard descriptors, without the buffers and locks that `std::io` puts around them.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};

/// Another handle of what `descriptor` leads to.
///
/// # Errors
/// When it is closed.
pub(crate) fn clone_of(descriptor: RawFd) -> io::Result<File> {
    /// Those below have a meaning of their own.
    const LEAST: libc::c_int = libc::STDERR_FILENO + 1;
    // SAFETY: The call reads no memory, and makes a new descriptor or none.
    let clone = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, LEAST) };
    if clone < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: It was just made, so nobody else owns it.
    Ok(unsafe { File::from_raw_fd(clone) })
}
