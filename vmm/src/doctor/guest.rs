//! The smallest guest: three instructions, run to see whether this host can.

use std::error::Error as _;
use std::iter;
use std::time::{Duration, Instant};

use shared_abi::ports;

use crate::tiny_guest::TinyGuest;
use crate::{Error, StopReason};

/// What the smallest guest ends with.
pub(super) const EXIT_CODE: u8 = 42;

/// More than any host needs that works at all: a nested one takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

const CODE: [[u8; 2]; 3] = [
    [0xB0, EXIT_CODE],         // mov al, 42
    [0xE6, ports::EXIT as u8], // out 0xF4, al
    [0xEB, 0xFE],              // jmp $: never reached, as the run ends above
];

/// How the smallest guest fared.
#[derive(Clone, Debug)]
pub(super) enum GuestFacts {
    /// It ran, and stopped for this reason. The time is that of building, running and stopping.
    Ran { stop: StopReason, time: Duration },
    /// It did not: what the host could not do.
    Failed(String),
}

/// Builds a machine for the smallest guest and runs it.
pub(super) fn run() -> GuestFacts {
    let start = Instant::now();
    match build_and_run() {
        Ok(stop) => GuestFacts::Ran { stop, time: start.elapsed() },
        Err(error) => GuestFacts::Failed(with_causes(&error)),
    }
}

fn build_and_run() -> crate::Result<StopReason> {
    Ok(TinyGuest { code: CODE.as_flattened(), timeout: TIMEOUT }.run()?.stop)
}

/// The error and its causes on one line.
fn with_causes(error: &Error) -> String {
    let causes = iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_guest_ends_with_its_code_on_this_host() {
        let facts = run();
        let GuestFacts::Ran { stop, .. } = &facts else {
            panic!("this test needs /dev/kvm: {facts:?}");
        };
        assert_eq!(*stop, StopReason::Exited { code: u32::from(EXIT_CODE) });
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = Error::OpenKvm(std::io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(with_causes(&error), "cannot open /dev/kvm: Permission denied (os error 13)");
    }
}
