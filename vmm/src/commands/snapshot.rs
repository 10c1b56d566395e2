//! `vmm run --snapshot-to` and `--restore`: a machine kept in a file, and gone on from.

use std::path::Path;

use vmm::observe::ExitCounts;
use vmm::session::Session;
use vmm::{Error, Input, Result, RunReport, Snapshot, SnapshotCalls, StopReason, Vm};

use crate::cli::{Machine, Press, Snapshots};
use crate::commands::chain;
use crate::say::say;

/// What becomes of the guest's wish.
pub(super) fn calls(snapshots: &Snapshots) -> SnapshotCalls {
    if snapshots.to.is_some() { SnapshotCalls::EndTheRun } else { SnapshotCalls::Refused }
}

/// The machine that goes on from a file.
pub(super) fn go_on(machine: Machine, snapshots: &Snapshots, press: &Press) -> Result<Vm> {
    let (path, mut surroundings) = machine.into_surroundings()?;
    if press.button {
        surroundings.input = Input::bytes([]);
    }
    surroundings.snapshots = calls(snapshots);
    Snapshot::read(&path)?.spawn(surroundings)
}

/// Runs `vm`, and keeps it whenever the guest asks; or, if it never does, when it is stopped from outside.
pub(super) fn run(vm: &mut Vm, snapshots: &Snapshots) -> Result<RunReport> {
    let path = snapshots.to.as_deref().expect("the caller has looked");
    let mut counts = ExitCounts::default();
    let mut session = vm.session()?;
    let mut is_kept = false;
    let stop = loop {
        match session.resume(&mut counts)? {
            StopReason::SnapshotAsked => is_kept |= keep(&mut session, path)?,
            stop => break stop,
        }
    };
    if !is_kept {
        match stop {
            StopReason::TimedOut { .. } | StopReason::Interrupted => drop(keep(&mut session, path)?),
            _ => say!("vmm: the guest asked for no snapshot, so {} was not written", path.display()),
        }
    }
    drop(session);
    Ok(vm.report(stop, counts))
}

/// Keeps the machine. One that cannot be kept is said, and runs on.
fn keep(session: &mut Session<'_>, path: &Path) -> Result<bool> {
    match session.snapshot() {
        Ok(snapshot) => snapshot.write(path).map(|()| true),
        Err(error @ Error::NoSnapshot(_)) => {
            say!("vmm: {}", chain(&error));
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
