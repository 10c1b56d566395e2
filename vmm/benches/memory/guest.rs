//! The guest that touches pages: `first-touch` of `guest-kernel/src/bin/bench.rs`, and how it is run.

use std::path::PathBuf;
use std::time::Instant;

use vmm::{Backing, KernelSource, SnapshotCalls, StopReason, Surroundings, Vm, VmConfig};

/// What a benchmark gives, or why it cannot go on.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// The image.
pub(crate) struct Guest(PathBuf);

impl Guest {
    /// The one that `cargo xtask bench` has built.
    pub(crate) fn built() -> Outcome<Self> {
        let image = std::env::var_os("DUET_BENCH_GUEST").ok_or("start this by `cargo xtask bench`")?;
        Ok(Self(image.into()))
    }

    /// A machine with `ram` bytes that is about to touch `pages` pages.
    pub(crate) fn machine(&self, ram: u64, backing: Backing, pages: u64) -> Outcome<Vm> {
        let mut config = VmConfig::new(KernelSource::File(self.0.clone()));
        config.arguments = vec!["first-touch".to_owned(), pages.to_string()];
        config.memory = vmm::MemorySize::new(ram)?;
        config.backing = backing;
        config.snapshots = SnapshotCalls::EndTheRun;
        let mut vm = Vm::build(config)?;
        one_pass(&mut vm)?;
        Ok(vm)
    }
}

/// Lets the guest go on to where it asks to be kept next: all its pages are written to in between.
pub(crate) fn one_pass(vm: &mut Vm) -> Outcome<()> {
    match vm.run()?.stop {
        StopReason::SnapshotAsked => Ok(()),
        other => Err(other.to_string().into()),
    }
}

/// Nobody, but for whoever keeps snapshots.
pub(crate) fn surroundings() -> Surroundings {
    Surroundings { snapshots: SnapshotCalls::EndTheRun, ..Surroundings::default() }
}

/// What a deed gives, and its time in nanoseconds.
pub(crate) fn timed<T>(deed: impl FnOnce() -> Outcome<T>) -> Outcome<(T, f64)> {
    let start = Instant::now();
    let done = deed()?;
    Ok((done, start.elapsed().as_secs_f64() * 1e9))
}
