//! `TinyGuest`: some bytes of machine code as a flat image.
//!
//! The doctor and the probes of features run guests that no compiler was needed for, in the smallest machine there is.

use std::time::Duration;

use shared_abi::{Gpa, Gva, layout};

use crate::{Contract, Flat, KernelSource, MemorySize, Result, RunReport, Start, StartMode, Vm, VmConfig};

/// A guest of some bytes of machine code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TinyGuest<'a> {
    /// The instructions.
    pub(crate) code: &'a [u8],
    /// How long they may run.
    pub(crate) timeout: Duration,
}

impl TinyGuest<'_> {
    /// Where its code lies and starts in modes that do not reach [`layout::KERNEL`], where it is in long mode.
    pub(crate) const LOW: u64 = 0x2_0000;

    /// Builds a machine for it: the smallest there is, in 64-bit mode, as every guest's.
    ///
    /// # Errors
    /// What the host could not do.
    pub(crate) fn build(&self) -> Result<Vm> {
        self.build_in(StartMode::Long)
    }

    /// Builds a machine for it that starts in `mode`.
    ///
    /// # Errors
    /// What the host could not do.
    pub(crate) fn build_in(&self, mode: StartMode) -> Result<Vm> {
        let mut config = VmConfig::new(KernelSource::Bytes(self.code.into()));
        let gpa = if mode == StartMode::Long { layout::KERNEL.0 } else { Self::LOW };
        config.start = Start { mode, flat: Some(Flat { load_at: Gpa(gpa), entry: Gva(gpa) }) };
        config.contract = Contract::None;
        config.memory = MemorySize::new(layout::MIN_RAM_SIZE).expect("the least size is a size");
        config.timeout = Some(self.timeout);
        Vm::build(config)
    }

    /// Builds a machine for it and runs it.
    ///
    /// # Errors
    /// What the host could not do.
    pub(crate) fn run(&self) -> Result<RunReport> {
        self.build()?.run()
    }
}
