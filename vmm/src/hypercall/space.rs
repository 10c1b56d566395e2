//! Calls about the guest's own memory: translate, fill with random bytes, copy the arguments.

use std::fs::File;
use std::io::{self, Read};

use shared_abi::define::Shared;
use shared_abi::hypercall::{MAX_RANDOM_BYTES, Translation};
use shared_abi::{Gva, HypercallError};

use super::Context;
use crate::error::Result;
use crate::guest_space::{Access, GuestBuffer};
use crate::hypercall::Answer;

/// Translates an address as the CPU would, and further to the VMM's own space.
pub(super) fn translate(context: &Context<'_>, gva: Gva, answer_gva: Gva) -> Result<Answer> {
    let space = context.space()?;
    let Some(mapping) = space.translate(gva) else {
        return Ok(Err(HypercallError::BadAddress));
    };
    let translation = Translation {
        gpa: mapping.gpa.0,
        hva: space.memory().hva(mapping.gpa).unwrap_or_default(),
        page_size: mapping.page_size.bytes(),
        writable: mapping.writable.into(),
        executable: mapping.executable.into(),
        user: mapping.user.into(),
    };
    Ok(space.write(answer_gva, &bytes_of(&translation)).map(|()| 0))
}

/// Fills memory from the host's random number generator.
pub(super) fn random_bytes(context: &Context<'_>, buffer: GuestBuffer) -> Result<Answer> {
    if buffer.size > MAX_RANDOM_BYTES {
        return Ok(Err(HypercallError::TooLarge));
    }
    let space = context.space()?;
    if let Err(error) = space.check(buffer, Access::Write) {
        return Ok(Err(error));
    }
    let mut bytes = vec![0; buffer.size as usize];
    if fill_randomly(&mut bytes).is_err() {
        return Ok(Err(HypercallError::HostFailed));
    }
    Ok(space.write(buffer.gva, &bytes).map(|()| buffer.size))
}

/// Fills `bytes` from the host's random number generator.
pub(super) fn fill_randomly(bytes: &mut [u8]) -> io::Result<()> {
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(bytes))
}

/// Copies the arguments as far as they fit, and answers what all of them take.
pub(super) fn arguments(context: &Context<'_>, buffer: GuestBuffer) -> Result<Answer> {
    let arguments = context.machine.arguments();
    let fitting = usize::try_from(buffer.size).map_or(arguments.len(), |size| size.min(arguments.len()));
    let copied = arguments.get(..fitting).unwrap_or_default();
    Ok(context.space()?.write(buffer.gva, copied).map(|()| arguments.len() as u64))
}

/// A shared structure as it lies in memory.
pub(super) fn bytes_of(value: &impl Shared) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.write(&mut |word| bytes.extend(word.to_le_bytes()));
    bytes
}
