//! One look: the kernel's counters and the sum over the machines.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::guests::Guests;
use super::process::Mergeable;

/// What was seen at one moment.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    /// Since the machines were ready.
    pub(super) seconds: f64,
    /// The kernel's counters; `None` when it has no KSM.
    pub(super) ksm: Option<Counters>,
    pub(super) guests: Pages,
}

/// The kernel's counters, of all memory that KSM knows, not of our machines alone. The names are the kernel's.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Counters {
    /// How often `ksmd` has been through all memory.
    pub(super) full_scans: u64,
    /// Merged copies in use.
    pub(super) pages_shared: u64,
    /// Pages that do not exist any more because a merged copy stands for them.
    pub(super) pages_sharing: u64,
    /// Pages without an equal one.
    pub(super) pages_unshared: u64,
    /// Pages that changed too fast to be looked at.
    pub(super) pages_volatile: u64,
}

/// Pages of all machines' RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Pages {
    /// Pages that the machines have.
    pub(super) present: u64,
    /// Those that share a merged copy; `None` when the kernel does not tell.
    pub(super) merged: Option<u64>,
    /// Those that have a copy of their own; `None` as above.
    pub(super) private: Option<u64>,
    /// Pages of physical memory in use for them, from every process's proportional share.
    pub(super) in_use: u64,
    /// `present` less `in_use`.
    pub(super) saved: u64,
    /// Different physical pages in the machines' page tables; `None` unless this user is root.
    pub(super) frames: Option<u64>,
}

impl Sample {
    /// Looks now, `elapsed` after the start.
    ///
    /// # Errors
    /// When a machine is gone.
    pub(super) fn take(elapsed: Duration, ksm: Option<Counters>, guests: &Guests) -> Result<Self> {
        let machines = guests.pids().map(|pid| Ok((pid, Mergeable::of(pid)?))).collect::<Result<Vec<_>>>()?;
        if machines.iter().any(|(_, machine)| machine.present == 0) {
            bail!("a machine has ended before its time");
        }
        let mut frames = HashSet::new();
        let seen = machines.iter().try_for_each(|(pid, machine)| machine.frames(*pid, &mut frames));
        let frames = seen.is_ok().then_some(frames.len() as u64);
        let pages = Pages::sum(machines.iter().map(|(_, machine)| machine), frames);
        Ok(Self { seconds: elapsed.as_secs_f64(), ksm, guests: pages })
    }

    #[cfg(test)]
    pub(super) fn of_test(full_scans: u64, merged: u64) -> Self {
        let ksm =
            Counters { full_scans, pages_shared: 0, pages_sharing: 0, pages_unshared: 0, pages_volatile: 0 };
        let guests = Pages { merged: Some(merged), ..Pages::default() };
        Self { seconds: 0.0, ksm: Some(ksm), guests }
    }
}

impl Pages {
    fn sum<'a>(machines: impl Iterator<Item = &'a Mergeable>, frames: Option<u64>) -> Self {
        let mut sum = Self { merged: Some(0), ..Self::default() };
        for machine in machines {
            sum.present += machine.present;
            sum.in_use += machine.share;
            sum.merged = sum.merged.zip(machine.merged).map(|(sum, more)| sum + more);
        }
        sum.private = sum.merged.map(|merged| sum.present.saturating_sub(merged));
        sum.saved = sum.present.saturating_sub(sum.in_use);
        Self { frames, ..sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_what_is_had_less_what_is_used() {
        let machine = Mergeable { present: 100, share: 60, merged: Some(80), ..Mergeable::default() };
        let sum = Pages::sum([&machine, &machine].into_iter(), Some(120));
        let expected = Pages {
            present: 200,
            merged: Some(160),
            private: Some(40),
            in_use: 120,
            saved: 80,
            frames: Some(120),
        };
        assert_eq!(sum, expected);
    }

    #[test]
    fn one_machine_that_does_not_tell_makes_the_sum_unknown() {
        let known = Mergeable { merged: Some(80), ..Mergeable::default() };
        let sum = Pages::sum([&known, &Mergeable::default()].into_iter(), None);
        assert_eq!((sum.merged, sum.private), (None, None));
    }
}
