//! Making one machine from a snapshot: at once, from a pool that has some ready, and instead of booting one.

use std::path::Path;

use serde_json::{Value, json};
use vmm::snapshot::Pool;
use vmm::{Snapshot, Vm};

use crate::bare::Source;
use crate::{Outcome, by_turns, config, surroundings, timed, to_first_exit_of};

pub(crate) fn measure(guest: &Path, snapshot: &Snapshot) -> Outcome<()> {
    new_machines(snapshot)?;
    from_pool(snapshot)?;
    instead_of_boot(guest, snapshot)
}

fn new_machines(snapshot: &Snapshot) -> Outcome<()> {
    let source = Source::new(snapshot)?;
    by_turns(
        "new machine to first exit",
        "bare calls",
        &json!({ "ratio": 1.3 }),
        || timed(|| to_first_exit_of(snapshot.spawn(surroundings())?)),
        || timed(|| source.to_first_exit()),
    )
}

fn from_pool(snapshot: &Snapshot) -> Outcome<()> {
    const READY: usize = 8;
    let source = Source::new(snapshot)?;
    let pool = Pool::new(snapshot.clone(), READY)?;
    by_turns(
        "from a pool to first exit",
        "bare calls",
        &Value::Null,
        || {
            while pool.ready() < READY {
                std::thread::yield_now();
            }
            timed(|| to_first_exit_of(pool.take(surroundings())?))
        },
        || timed(|| source.to_first_exit()),
    )
}

/// A machine that goes on from where one is that boots.
fn instead_of_boot(guest: &Path, snapshot: &Snapshot) -> Outcome<()> {
    by_turns(
        "new machine, not booted",
        "booted",
        &Value::Null,
        || timed(|| Ok(snapshot.spawn(surroundings())?)),
        || timed(|| to_first_exit_of(Vm::build(config(guest))?)),
    )
}
