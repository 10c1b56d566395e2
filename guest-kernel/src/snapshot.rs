//! Snapshots: the whole machine kept as it is, and where it goes on from there.
//!
//! ```no_run,ignore-none
//! use guest_kernel::snapshot::{self, Continued};
//!
//! // … all that takes long …
//! match snapshot::take().expect("vmm run --snapshot-to FILE") {
//!     Continued::Original => {}
//!     Continued::Copy { number } => guest_kernel::println!("copy {number} goes on from here"),
//! }
//! ```
//!
//! Time goes on, and the host's random numbers differ. But memory is as it was: a guest that makes random numbers from a
//! seed of its own takes a new seed when it is a copy. Host side: `vmm/src/hypercall/snapshot.rs`.

use crate::hypercall::{self, Hypercall, HypercallError};

/// Who goes on behind [`take`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continued {
    /// The machine that has asked.
    Original,
    /// One that goes on from what was kept.
    Copy {
        /// Which one: they count from 1.
        number: u64,
    },
}

/// Has the machine kept as it is here.
///
/// # Errors
/// `NotGranted` when the user keeps none, `NotPermitted` while files or channels are open.
pub fn take() -> Result<Continued, HypercallError> {
    Ok(match hypercall::call(Hypercall::Snapshot)? {
        0 => Continued::Original,
        number => Continued::Copy { number },
    })
}

/// A number that no other machine has, and that is another one when this machine has gone on from a snapshot.
///
/// # Errors
/// As the host's.
pub fn identity() -> Result<u64, HypercallError> {
    hypercall::call(Hypercall::Identity)
}
