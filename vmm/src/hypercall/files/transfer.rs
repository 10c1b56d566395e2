//! Bytes between a file and guest RAM: the host's kernel copies them straight there, piece by piece.

use std::fs::File;
use std::io;

use shared_abi::HypercallError;
use shared_abi::hypercall::Answer;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice, WriteVolatile};

use super::answer::hypercall_error;
use crate::guest_space::{Access, GuestBuffer, GuestSpace};

/// At most so many bytes at once. More would only keep a guest from being stopped in time.
pub(super) const MAX_TRANSFER: u64 = 64 << 20;

/// The part of `buffer` that one call transfers, `most` bytes, checked to be RAM that can be accessed so.
pub(super) fn part(
    space: &GuestSpace<'_>,
    buffer: GuestBuffer,
    access: Access,
    most: u64,
) -> Result<GuestBuffer, HypercallError> {
    if buffer.size > space.memory().size().bytes() {
        return Err(HypercallError::TooLarge);
    }
    let part = GuestBuffer { size: buffer.size.min(most), ..buffer };
    space.check(part, access).map(|()| part)
}

/// Reads from the file's position into `buffer`. Answers the bytes read: fewer at the end of the file.
pub(super) fn read(mut file: &File, space: &GuestSpace<'_>, buffer: GuestBuffer) -> Answer {
    transfer(space, buffer, Access::Write, |slice| file.read_volatile(slice))
}

/// Writes `buffer` at the file's position. Answers the bytes written: fewer when the disk is full.
pub(super) fn write(mut file: &File, space: &GuestSpace<'_>, buffer: GuestBuffer) -> Answer {
    transfer(space, buffer, Access::Read, |slice| file.write_volatile(slice))
}

/// Hands the pieces of `buffer` to `step` until one of them is not done completely. An error after the first byte
/// waits for the next call.
fn transfer(
    space: &GuestSpace<'_>,
    buffer: GuestBuffer,
    access: Access,
    mut step: impl FnMut(&mut VolatileSlice<'_>) -> Result<usize, VolatileMemoryError>,
) -> Answer {
    let mut done = 0;
    for piece in space.pieces(buffer, access) {
        let stepped = piece.and_then(|piece| {
            // Another vCPU may have changed the tables since the check.
            let mut slice =
                space.memory().slice(piece.gpa, piece.size).map_err(|_| HypercallError::BadAddress)?;
            Ok((until_done(|| step(&mut slice))? as u64, piece.size))
        });
        match stepped {
            Ok((count, size)) => {
                done += count;
                if count < size {
                    break;
                }
            }
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Repeats a system call that a signal has interrupted.
fn until_done(mut call: impl FnMut() -> Result<usize, VolatileMemoryError>) -> Result<usize, HypercallError> {
    loop {
        match call() {
            Ok(count) => return Ok(count),
            Err(VolatileMemoryError::IOError(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(VolatileMemoryError::IOError(error)) => return Err(hypercall_error(&error)),
            Err(_) => return Err(HypercallError::BadAddress),
        }
    }
}
