//! Opening a file: what the flags may be, and what may be opened.

use std::io;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use shared_abi::HypercallError;
use shared_abi::hypercall::OpenFlags;

use super::GrantMode;
use super::answer::hypercall_error;
use super::budget::Budget;
use super::handles::OpenFile;

/// Checks that `flags` make sense, by the rules of [`std::fs::OpenOptions`], and that the grant allows them.
pub(super) fn check(flags: OpenFlags, mode: GrantMode) -> Result<(), HypercallError> {
    let has = |flag| flags.has(flag);
    let writes = has(OpenFlags::WRITE) || has(OpenFlags::APPEND);
    let makes = has(OpenFlags::CREATE) || has(OpenFlags::CREATE_NEW);
    let may_empty = has(OpenFlags::WRITE) && !has(OpenFlags::APPEND);

    let meaningless = if has(OpenFlags::DIRECTORY) {
        flags != OpenFlags::DIRECTORY
    } else {
        let neither = !has(OpenFlags::READ) && !writes;
        neither || (makes && !writes) || (has(OpenFlags::TRUNCATE) && !may_empty)
    };
    match mode {
        _ if meaningless => Err(HypercallError::BadArgument),
        GrantMode::ReadOnly if writes => Err(HypercallError::NotGranted),
        _ => Ok(()),
    }
}

/// Opens the file at `path`, with flags that make sense.
///
/// Only regular files are opened. Opening a FIFO or a device can wait for ever or start something, so the path is
/// looked at first. Should somebody on the host exchange it then, opening waits for nothing (`O_NONBLOCK`), and what
/// was opened is looked at again.
pub(super) fn file(
    granted: &Dir,
    path: &str,
    flags: OpenFlags,
    budget: &mut Budget,
) -> Result<OpenFile, HypercallError> {
    let makes = flags.has(OpenFlags::CREATE) || flags.has(OpenFlags::CREATE_NEW);
    let exists = match granted.metadata(path) {
        Ok(_) if flags.has(OpenFlags::CREATE_NEW) => return Err(HypercallError::AlreadyExists),
        Ok(found) => check_kind(found.is_dir(), found.is_file()).map(|()| true)?,
        Err(error) if makes && error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(hypercall_error(&error)),
    };
    if !exists {
        budget.check_make()?;
    }
    let opened = granted.open_with(path, &options(flags)).map_err(|error| hypercall_error(&error))?;
    if !exists {
        budget.pay_make();
    }
    let file = opened.into_std();
    let kind = file.metadata().map_err(|error| hypercall_error(&error))?.file_type();
    check_kind(kind.is_dir(), kind.is_file())?;
    Ok(OpenFile::new(file, flags))
}

fn check_kind(is_directory: bool, is_file: bool) -> Result<(), HypercallError> {
    match (is_directory, is_file) {
        (true, _) => Err(HypercallError::IsADirectory),
        (_, true) => Ok(()),
        _ => Err(HypercallError::NotPermitted),
    }
}

fn options(flags: OpenFlags) -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(flags.has(OpenFlags::READ))
        .write(flags.has(OpenFlags::WRITE))
        .append(flags.has(OpenFlags::APPEND))
        .create(flags.has(OpenFlags::CREATE))
        .truncate(flags.has(OpenFlags::TRUNCATE))
        .create_new(flags.has(OpenFlags::CREATE_NEW))
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}
