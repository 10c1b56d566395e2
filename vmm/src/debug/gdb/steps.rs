//! `Steps`: an observer that counts exits, and ends steps that end with an exit ([`resume`](super::resume) says why).

use crate::exit::Exit;
use crate::next::Next;
use crate::observe::{ExitCounts, Observer};
use crate::stop::StopHandle;
use crate::vcpu::Place;

/// Counts exits, and ends steps that end with an exit.
#[derive(Debug)]
pub(super) struct Steps {
    counts: ExitCounts,
    stop: StopHandle,
    /// Whether the machine is to stop when an exit is answered.
    pub(super) is_stepping: bool,
    /// Whether the last exit is part of an instruction that the host finishes.
    is_shared: bool,
    /// Whether it was.
    pub(super) has_stepped: bool,
}

impl Steps {
    pub(super) fn new(stop: StopHandle) -> Self {
        Self { counts: ExitCounts::default(), stop, is_stepping: false, is_shared: false, has_stepped: false }
    }
}

impl Observer for Steps {
    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.counts.on_exit(exit, place);
        self.is_shared = matches!(
            exit,
            Exit::Hypercall
                | Exit::PioIn { .. }
                | Exit::PioOut { .. }
                | Exit::MmioRead { .. }
                | Exit::MmioWrite { .. }
        );
    }

    fn on_answer(&mut self, next: &Next) {
        if self.is_stepping && self.is_shared && *next == Next::Resume {
            self.has_stepped = true;
            self.stop.pause();
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}
