//! What the host's kernel says about files, in the words of the contract.

use std::io;
use std::time::UNIX_EPOCH;

use cap_std::fs::Metadata;
use shared_abi::HypercallError;

/// The error that a guest is told.
pub(super) fn hypercall_error(error: &io::Error) -> HypercallError {
    use io::ErrorKind as Kind;
    match error.raw_os_error() {
        // Too many links, or one out of /proc; an end of a FIFO or a socket; a device without a driver.
        Some(libc::ELOOP | libc::ENXIO | libc::ENODEV) => return HypercallError::NotPermitted,
        Some(libc::EMFILE | libc::ENFILE) => return HypercallError::TooManyOpenFiles,
        _ => {}
    }
    match error.kind() {
        Kind::NotFound => HypercallError::NotFound,
        Kind::AlreadyExists => HypercallError::AlreadyExists,
        Kind::IsADirectory => HypercallError::IsADirectory,
        Kind::NotADirectory => HypercallError::NotADirectory,
        // cap-std says so of a path that leads out.
        Kind::PermissionDenied | Kind::ReadOnlyFilesystem | Kind::ExecutableFileBusy => {
            HypercallError::NotPermitted
        }
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge => HypercallError::NoSpace,
        Kind::InvalidFilename => HypercallError::TooLarge,
        Kind::InvalidInput => HypercallError::BadArgument,
        _ => HypercallError::HostFailed,
    }
}

/// When a file was changed, in nanoseconds since 1970; 0 when nobody knows, or when it was before.
pub(super) fn modified_ns(found: &Metadata) -> u64 {
    let modified = found.modified().ok().map(cap_std::time::SystemTime::into_std);
    let since_1970 = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since_1970.and_then(|duration| u64::try_from(duration.as_nanos()).ok()).unwrap_or_default()
}
