//! Snapshots: a machine that stands still, kept, so that it can go on from there any number of times.
//!
//! Two things make one: RAM (`vmm/src/frozen.rs`, shared until somebody writes) and what the CPUs and devices hold
//! ([`state`]). There are two ways to go on from it:
//!
//! ```text
//! Vm::snapshot ──► Snapshot ──┬── Vm::restore        the same machine, back at that moment
//!    Snapshot::read ──►       ├── Snapshot::spawn    a new machine, any number of them
//!                             ├── Pool               new machines that are ready before they are wanted
//!                             └── Snapshot::write    a file, for another process or another day
//! ```
//!
//! A machine is taken between two entries of its guest: all vCPUs stand, and what KVM has begun for them is finished.
//!
//! # What is not the machine's, and so not in a snapshot
//!
//! - **Time.** `WallTime` and `MonotonicTime` are the host's and go on; in another process the latter goes on from where
//!   it was. The time-stamp counter never goes back: in a machine
//!   that is restored it counts on, in a new one it starts where the snapshot was taken.
//! - **Random numbers.** `RandomBytes` are the host's, never given twice. A guest that makes its own from a seed in its RAM
//!   would repeat them.
//! - **What is outside.** Text that was shown is shown; input that was read is read; a directory's files are as they are,
//!   and what may still be written there is not counted anew. A new machine has a console, an input, a log and a directory
//!   of its own ([`Surroundings`]).
//! - **Those who watch.** Counts of exits, journals and debuggers begin anew.
//!
//! What cannot be kept is refused ([`Uncapturable`]): open files, channels, guests inside the guest.

pub mod file;
mod pool;
mod restore;
mod spawn;
pub mod state;
mod take;
mod vcpu;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use kvm_ioctls::Kvm;

use crate::frozen::FrozenRam;
use crate::vm::Lineage;
pub use pool::Pool;
pub use spawn::Surroundings;
use state::State;
pub use take::Uncapturable;
pub(crate) use take::can_have_inner_guests;

/// A machine at one moment. Cheap to clone: all clones are the same one.
#[derive(Clone, Debug)]
pub struct Snapshot(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    ram: Arc<FrozenRam>,
    state: State,
    lineage: Arc<Lineage>,
    /// How often a machine has gone on from here.
    continuations: AtomicU64,
    /// What new machines are asked of; opened for the first.
    kvm: OnceLock<Kvm>,
}

impl Snapshot {
    fn new(ram: Arc<FrozenRam>, state: State, lineage: Arc<Lineage>) -> Self {
        Self(Arc::new(Parts { ram, state, lineage, continuations: AtomicU64::new(0), kvm: OnceLock::new() }))
    }

    /// What its CPUs and devices hold.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.0.state
    }

    /// Bytes of RAM that are not zero pages: what it takes in the host's memory.
    #[must_use]
    pub fn ram_bytes(&self) -> u64 {
        self.0.ram.pages().iter().map(|extent| extent.end.0 - extent.start.0).sum()
    }
}
